// The kernels on the CPU (host.h), beside plain loops in double precision: crates/models/tests/cuda_kernels.rs compiles
// and runs this. Outputs are poisoned first; each launch runs with the threads' turns in both orders, and must give the
// same bits.
#include <cstdio>
#include <random>

#include "kernels.cu"

static int failures = 0;
static std::mt19937 random_bits(7);

static void check(bool good, const char *what, const char *type, double a = 0, double b = 0) {
  if (!good) failures++, std::printf("FAILED %s %s: %g, expected %g\n", what, type, a, b);
}
static float draw() { return std::normal_distribution<float>(0, 1)(random_bits); }

template <typename T> static std::vector<T> drawn(size_t count) {
  std::vector<T> values(count);
  for (T &value : values) value = from_float<T>(draw());
  return values;
}
template <typename T> static std::vector<T> poisoned(size_t count) {
  return std::vector<T>(count, from_float<T>(NAN));
}

// Runs `kernel`, which fills `out`, in both orders.
template <typename T>
static void twice(std::vector<T> &out, const char *what, const char *type, const std::function<void()> &kernel) {
  std::vector<T> poison = out;
  host::gpu.reversed = true;
  kernel();
  std::vector<T> other = out;
  out = poison;
  host::gpu.reversed = false;
  kernel();
  check(std::memcmp(out.data(), other.data(), out.size() * sizeof(T)) == 0, what, type);
}

template <typename T> static void near(const std::vector<T> &found, const std::vector<double> &expected, double bound,
                                       const char *what, const char *type) {
  for (size_t i = 0; i < expected.size(); i++) {
    double x = to_float(found[i]);
    if (!(std::fabs(x - expected[i]) <= bound * (1 + std::fabs(expected[i])))) {
      check(false, what, type, x, expected[i]);
      return;
    }
  }
}

// `mma`: attention_mma where the width of a head allows it.
template <typename T, int MMA> static void attend(std::vector<T> &out, const std::vector<T> &qkv, const T *cache,
                                                  const std::vector<int4> &items, const int *tables, int table_stride,
                                                  size_t block_stride, int heads, int dim, int parts, bool causal,
                                                  const char *type) {
  std::vector<float> space(parts ? (size_t)out.size() / dim * parts * (dim + 2) : 1, NAN);
  float scale = 1 / std::sqrt((float)dim);
  twice(out, "attention", type, [&] {
    host::launch({(unsigned)items.size(), (unsigned)heads, (unsigned)(parts ? parts : 1)}, 128,
                 4 * (TILE * (dim + 1) + TILE * dim + ROWS * dim), [&] {
      float *at = parts ? space.data() : nullptr;
      if constexpr (MMA > 0) {
        attention_mma<T, MMA>(out.data(), qkv.data(), cache, items.data(), tables, table_stride, block_stride, heads,
                              scale, at, causal);
      } else {
        attention<T>(out.data(), qkv.data(), cache, items.data(), tables, table_stride, block_stride, heads, dim, scale,
                     at, causal);
      }
    });
    if (parts) {
      host::launch({(unsigned)items.size(), (unsigned)heads, 1}, 512, 0, [&] {
        combine<T>(out.data(), space.data(), items.data(), parts, heads, dim, causal);
      });
    }
  });
}

// Sequences {rows before, new rows} with a cache in blocks that are not in order; texts of the same new rows.
template <typename T, int MMA> static void attention_of(int heads, int dim, double bound, const char *type) {
  const std::vector<std::pair<int, int>> sequences = {{0, 1}, {0, 70}, {130, 9}, {255, 1}, {31, 33}};
  const int layers = 2, layer = 1, width = heads * dim, stride = 12, most = MMA ? 64 : 16;
  const size_t block = (size_t)layers * 2 * TILE * width;
  int m = 0;
  for (auto [before, count] : sequences) m += count;
  std::vector<T> qkv = drawn<T>((size_t)m * 3 * width), cache = poisoned<T>(sequences.size() * stride * block);
  std::vector<int> tables, slots;
  std::vector<int4> items, single, texts;
  std::vector<std::vector<T>> keys(sequences.size()), values(sequences.size());
  T *place = cache.data() + (size_t)layer * 2 * TILE * width;
  int row = 0;
  for (size_t s = 0; s < sequences.size(); s++) {
    auto [before, count] = sequences[s];
    for (int i = 0; i < stride; i++) tables.push_back((s * stride + i) * 7 % (sequences.size() * stride));
    auto slot = [&](int position) { return tables[s * stride + position / TILE] * TILE + position % TILE; };
    keys[s] = drawn<T>((size_t)before * width), values[s] = drawn<T>((size_t)before * width);
    for (int p = 0; p < before; p++) for (int i = 0; i < width; i++) {
      T *at = place + slot(p) / TILE * block;
      at[((size_t)(i / dim) * TILE + p % TILE) * dim + i % dim] = keys[s][(size_t)p * width + i];
      at[((size_t)(heads + i / dim) * TILE + p % TILE) * dim + i % dim] = values[s][(size_t)p * width + i];
    }
    for (int r = 0; r < count; r++) {
      slots.push_back(slot(before + r));
      single.push_back({(int)s, row + r, before + r, 1});
      const T *new_row = &qkv[(size_t)(row + r) * 3 * width];
      keys[s].insert(keys[s].end(), new_row + width, new_row + 2 * width);
      values[s].insert(values[s].end(), new_row + 2 * width, new_row + 3 * width);
    }
    for (int r = 0; r < count; r += most) {
      items.push_back({(int)s, row + r, before + r, std::min(most, count - r)});
      texts.push_back({row, row + r, count, std::min(most, count - r)});
    }
    row += count;
  }
  for (int r = 0; r < m; r++) for (int i = 0; i < 2 * width; i++) {
    T *at = place + (size_t)(slots[r] / TILE) * block;
    at[((size_t)(i / dim) * TILE + slots[r] % TILE) * dim + i % dim] = qkv[(size_t)r * 3 * width + width + i];
  }

  auto expected = [&](bool causal) {
    std::vector<double> out;
    int row = 0;
    for (size_t s = 0; s < sequences.size(); s++) {
      auto [before, count] = sequences[s];
      for (int r = 0; r < count; r++, row++) for (int head = 0; head < heads; head++) {
        int from = causal ? 0 : before, to = causal ? before + r + 1 : before + count;
        std::vector<double> weights, mixed(dim);
        double most = -INFINITY, sum = 0;
        for (int key = from; key < to; key++) {
          double score = 0;
          for (int d = 0; d < dim; d++) {
            score += (double)to_float(qkv[(size_t)row * 3 * width + head * dim + d]) *
                     to_float(keys[s][(size_t)key * width + head * dim + d]);
          }
          weights.push_back(score / std::sqrt((double)dim));
          most = std::max(most, weights.back());
        }
        for (double &weight : weights) sum += weight = std::exp(weight - most);
        for (int key = from; key < to; key++) for (int d = 0; d < dim; d++) {
          mixed[d] += weights[key - from] / sum * to_float(values[s][(size_t)key * width + head * dim + d]);
        }
        out.insert(out.end(), mixed.begin(), mixed.end());
      }
    }
    return out;
  };
  auto run = [&](const std::vector<int4> &items, int parts, bool causal) {
    std::vector<T> out = poisoned<T>((size_t)m * width);
    attend<T, MMA>(out, qkv, causal ? place : nullptr, items, tables.data(), stride, block, heads, dim, parts, causal,
                   type);
    return out;
  };
  auto same = [&](const std::vector<T> &a, const std::vector<T> &b, const char *what) {
    check(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0, what, type);
  };
  std::vector<T> whole = run(items, 0, true);
  near(whole, expected(true), bound, "causal attention", type);
  same(run(items, 2, true), whole, "attention in parts");
  same(run(single, 0, true), whole, "attention row by row");
  same(run(single, 4, true), whole, "attention row by row in parts");
  near(run(texts, 0, false), expected(false), bound, "full attention", type);
}

template <typename T> static void rows_of(int width, double bound, const char *type) {
  const int rows = 5, words = 11;
  std::vector<T> table = drawn<T>(words * width), places = drawn<T>(8 * width), kinds = drawn<T>(2 * width);
  std::vector<int> ids = {3, 10, 0, 3, 7}, at = {0, 1, 7, 2, 5}, kind = {0, 1, 1, 0, 0}, from = {4, 0, 0};
  std::vector<float> x(rows * width, NAN), weight = drawn<float>(width), bias = drawn<float>(width);
  twice(x, "embed", type, [&] {
    host::launch({rows, 1, 1}, 128, 0, [&] {
      embed<T>(x.data(), table.data(), places.data(), kinds.data(), ids.data(), at.data(), kind.data(), width);
    });
  });
  std::vector<double> sums, normal;
  for (int r = 0; r < rows; r++) for (int i = 0; i < width; i++) {
    sums.push_back((double)to_float(table[ids[r] * width + i]) + to_float(places[at[r] * width + i]) +
                   to_float(kinds[kind[r] * width + i]));
  }
  near(x, sums, 1e-6, "embed", type);
  for (int r : from) {
    double mean = 0, variance = 0;
    for (int i = 0; i < width; i++) mean += x[r * width + i] / width;
    for (int i = 0; i < width; i++) variance += std::pow(x[r * width + i] - mean, 2) / width;
    for (int i = 0; i < width; i++) {
      normal.push_back((x[r * width + i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i]);
    }
  }
  std::vector<T> out = poisoned<T>(from.size() * width);
  std::vector<float> same(out.size(), NAN);
  twice(out, "layer_norm", type, [&] {
    host::launch({1, 1, 1}, 128, 0, [&] {
      layer_norm<T>(out.data(), same.data(), x.data(), from.data(), weight.data(), bias.data(), width, width, 1e-5f,
                    (int)from.size());
    });
  });
  near(out, normal, bound, "layer_norm", type);
  near(same, normal, 1e-5, "layer_norm's floats", type);
  std::vector<T> chosen = poisoned<T>(from.size() * width);
  host::launch({(unsigned)from.size(), 1, 1}, 128, 0, [&] { gather<T>(chosen.data(), x.data(), from.data(), width, width); });
  // The same of rows that lie farther apart.
  const int pitch = width + 2;
  std::vector<float> apart(rows * pitch, NAN), same_apart(same.size(), NAN);
  for (int r = 0; r < rows; r++) std::copy_n(&x[r * width], width, &apart[r * pitch]);
  std::vector<T> chosen_apart = poisoned<T>(from.size() * width), out_apart = poisoned<T>(from.size() * width);
  host::launch({(unsigned)from.size(), 1, 1}, 128, 0,
               [&] { gather<T>(chosen_apart.data(), apart.data(), from.data(), width, pitch); });
  check(std::memcmp(chosen.data(), chosen_apart.data(), chosen.size() * sizeof(T)) == 0, "gather apart", type);
  host::launch({1, 1, 1}, 128, 0, [&] {
    layer_norm<T>(out_apart.data(), same_apart.data(), apart.data(), from.data(), weight.data(), bias.data(), width,
                  pitch, 1e-5f, (int)from.size());
  });
  near(out_apart, normal, bound, "layer_norm apart", type);
  for (size_t r = 0; r < from.size(); r++) for (int i = 0; i < width; i++) {
    T want = from_float<T>(x[from[r] * width + i]);
    check(std::memcmp(&chosen[r * width + i], &want, sizeof(T)) == 0, "gather", type);
  }
}

static void others() {
  const int vocabulary = 1003, stride = 1004;
  std::vector<float> logits = drawn<float>(4 * stride);
  for (int row = 0; row < 4; row++) logits[row * stride + 1003] = INFINITY; // beyond the vocabulary
  logits[700] = logits[41] = logits[1002] = 9;
  logits[stride + 1002] = 9;
  logits[2 * stride + 5] = NAN;
  logits[3 * stride + 6] = INFINITY;
  std::vector<float> best(4); // bits of ints
  twice(best, "argmax", "f32", [&] {
    host::launch({4, 1, 1}, 1024, 0, [&] { argmax_f32((int *)best.data(), logits.data(), vocabulary, stride); });
  });
  const int want[] = {41, 1002, -1, -1};
  for (int i = 0; i < 4; i++) check(((int *)best.data())[i] == want[i], "argmax", "f32", ((int *)best.data())[i], want[i]);

  std::vector<float> x = drawn<float>(9 * 40), out(80, NAN);
  const std::vector<int2> texts = {{0, 2}, {2, 7}};
  for (int mean = 0; mean < 2; mean++) for (int skipped : {0, 1, 2, 5}) {
    std::vector<double> expected;
    for (int2 text : texts) for (int i = 0; i < 40; i++) {
      int first = skipped < text.y ? skipped : 0;
      double sum = 0;
      for (int r = first; r < text.y; r++) sum += x[(text.x + r) * 40 + i];
      expected.push_back(mean ? sum / (text.y - first) : x[(text.x + first) * 40 + i]);
    }
    host::launch({2, 1, 1}, 128, 0, [&] { pool_f32(out.data(), x.data(), texts.data(), 40, mean, skipped); });
    near(out, expected, 1e-5, "pool", "f32");
  }
}

// Every tile gives what plain loops give, and the same bits as every other, for a row among any others.
template <typename T> static void products_of(double bound, const char *type) {
  using Kernel = void (*)(void *, const T *, const T *, const float *, int, int, int, int, int, int, T *, const int *,
                          long, int);
  struct Tile { int rows, columns, threads; size_t shared; Kernel run; };
  std::vector<Tile> tiles;
  auto half = [&](int bm, int bn, int threads, int bk, int stages, Kernel run) {
    tiles.push_back({bm, bn, threads, (size_t)(bm + bn) * bk * stages * 2, run});
  };
  if constexpr (sizeof(T) == 4) {
    tiles = {{128, 64, 128, (128 * 20 + 64 * 16) * 3 * 4, gemm128x64_f32},
             {64, 64, 256, (64 * 20 + 64 * 16) * 4 * 4, gemm64x64_f32},
             {16, 32, 128, (16 * 68 + 32 * 64) * 6 * 4, gemm16x32_f32}};
  } else {
#define TILES(name)                                                                                                   \
  half(16, 32, 128, 128, 8, gemm16x32_##name), half(32, 32, 128, 128, 5, gemm32x32_##name),                           \
      half(64, 32, 128, 128, 3, gemm64x32_##name), half(64, 64, 128, 64, 4, gemm64x64_##name),                        \
      half(128, 128, 128, 64, 3, gemm128x128_##name), half(128, 128, 256, 64, 6, wgmma128x128_##name),                \
      half(128, 192, 256, 64, 5, wgmma128x192_##name)
    if constexpr (std::is_same_v<T, __half>) TILES(f16);
    else TILES(bf16);
  }
  struct Case { int rows, input, output, to, activation; bool transposed; };
  for (Case c : {Case{3, 36, 20, SAME, -1, false}, Case{130, 136, 150, FLOATS, 4, true}, Case{5, 50, 150, SAME, 0, true},
                 Case{70, 264, 68, ADDED, -1, false}, Case{17, 520, 132, SAME, 1, true}, Case{1, 100, 7, FLOATS, 0, true},
                 Case{2, 50, 50, ADDED, -1, false}}) {
    int stride = c.to == FLOATS ? (c.output + 3) / 4 * 4 : c.output;
    // What is of type T and has three parts is queries, keys and values of 2 heads: those go into a cache as well.
    int width = c.output / 3, dim = width / 2;
    bool appends = c.to == SAME && c.output % 6 == 0;
    long block = 2 * TILE * width;
    std::vector<int> slots;
    for (int r = 0; r < c.rows; r++) slots.push_back(r == 1 ? -1 : (r * 7 + 3) % (c.rows * TILE));
    // Half types: (output, pitch); floats: (input, pitch).
    bool columns_first = sizeof(T) == 2;
    int pitch = columns_first ? (c.input + 7) / 8 * 8 : (c.output + 3) / 4 * 4;
    std::vector<T> x = drawn<T>((size_t)c.rows * c.input), w = drawn<T>((size_t)c.input * c.output);
    std::vector<T> packed((size_t)(columns_first ? c.output : c.input) * pitch, from_float<T>(0));
    std::vector<float> bias = drawn<float>((c.output + 3) / 4 * 4), before = drawn<float>((size_t)c.rows * stride);
    // In two parts, as the weights of several layers are fused.
    int part = c.transposed ? c.output / 2 : c.output;
    for (int first = 0; first < c.output; first += part) {
      int count = std::min(part, c.output - first);
      host::launch({2, 1, 1}, 128, 0, [&] {
        const T *from = w.data() + (size_t)first * c.input;
        if (columns_first) {
          place<T>(packed.data() + (size_t)first * pitch, from, count, c.input, pitch, !c.transposed);
        } else {
          place<T>(packed.data() + first, from, c.input, count, pitch, c.transposed);
        }
      });
    }
    std::vector<double> expected(c.rows * c.output);
    for (int r = 0; r < c.rows; r++) for (int n = 0; n < c.output; n++) {
      double sum = bias[n];
      for (int k = 0; k < c.input; k++) {
        sum += (double)to_float(x[r * c.input + k]) * to_float(w[c.transposed ? n * c.input + k : k * c.output + n]);
      }
      double act[] = {0.5 * sum * (1 + std::erf(sum / std::sqrt(2.0))),
                      0.5 * sum * (1 + std::tanh(std::sqrt(2 / M_PI) * (sum + 0.044715 * sum * sum * sum))), 0, 0,
                      std::tanh(sum)};
      if (c.activation >= 0) sum = act[c.activation];
      expected[r * c.output + n] = c.to == ADDED ? sum + before[(size_t)r * stride + n] : sum;
    }
    std::vector<float> other;
    for (const Tile &tile : tiles) {
      std::vector<T> kept = poisoned<T>((size_t)c.rows * block);
      T *cache = appends ? kept.data() : nullptr;
      // Floats that hold y, of whichever type.
      std::vector<float> y = c.to == ADDED ? before : std::vector<float>((size_t)c.rows * stride, NAN);
      auto launch = [&](float *y, const T *x, int rows) {
        host::launch({(unsigned)((rows + tile.rows - 1) / tile.rows), (unsigned)((c.output + tile.columns - 1) / tile.columns), 1},
                     tile.threads, tile.shared, [&] {
                       tile.run(y, x, packed.data(), bias.data(), rows, c.input, c.output, pitch, c.to, c.activation, cache, slots.data(),
                                block, dim);
                     });
      };
      twice(y, "product", type, [&] { launch(y.data(), x.data(), c.rows); });
      auto value = [&](const std::vector<float> &y, int at) {
        return c.to == SAME ? to_float(((const T *)y.data())[at]) : y[at];
      };
      for (int r = 0; r < c.rows; r++) for (int n = 0; n < c.output; n++) {
        double found = value(y, r * stride + n), want = expected[r * c.output + n];
        double limit = (c.to == SAME ? bound : 1e-4) * (1 + std::fabs(want));
        if (!(std::fabs(found - want) <= limit)) return check(false, "product", type, found, want);
        if (!other.empty() && found != value(other, r * stride + n)) return check(false, "another tile", type, found, want);
      }
      for (int r = 0; appends && r < c.rows; r++) for (int i = 0; i < 2 * width; i++) {
        if (slots[r] < 0) continue;
        T found = kept[(size_t)(slots[r] / TILE) * block + ((size_t)(i / dim) * TILE + slots[r] % TILE) * dim + i % dim];
        check(to_float(found) == value(y, r * stride + width + i), "append", type);
      }
      check(!appends || std::isnan(to_float(kept[0])), "append elsewhere", type);
      cache = nullptr;
      other = y;
      // The last row alone.
      std::vector<float> alone(stride, NAN);
      if (c.to == ADDED) std::copy(before.end() - stride, before.end(), alone.begin());
      launch(alone.data(), x.data() + (size_t)(c.rows - 1) * c.input, 1);
      for (int n = 0; n < c.output; n++) {
        check(value(alone, n) == value(y, (c.rows - 1) * stride + n), "a row alone", type);
      }
    }
  }
}

int main() {
  products_of<float>(1e-4, "f32");
  products_of<__half>(2e-3, "f16");
  products_of<__nv_bfloat16>(1e-2, "bf16");
  for (int width : {36, 50, 772, 1028}) {
    rows_of<float>(width, 1e-5, "f32");
    rows_of<__half>(width, 2e-3, "f16");
    rows_of<__nv_bfloat16>(width, 1e-2, "bf16");
  }
  others();
  attention_of<float, 0>(2, 64, 1e-5, "f32");
  attention_of<float, 0>(3, 12, 1e-5, "f32, heads of 12");
  attention_of<float, 0>(1, 9, 1e-5, "f32, heads of 9");
  attention_of<__half, 0>(1, 128, 2e-3, "f16, heads of 128");
  attention_of<__nv_bfloat16, 0>(2, 16, 1e-2, "bf16, heads of 16");
  attention_of<__half, 64>(2, 64, 2e-3, "f16, tensor cores");
  attention_of<__half, 32>(2, 32, 2e-3, "f16, tensor cores, heads of 32");
  attention_of<__nv_bfloat16, 64>(1, 64, 1.5e-2, "bf16, tensor cores");
  attention_of<__nv_bfloat16, 32>(3, 32, 1.5e-2, "bf16, tensor cores, heads of 32");
  std::printf("%d failures\n", failures);
  return failures > 0;
}
