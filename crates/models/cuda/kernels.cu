// The kernels of crates/models/src/cuda, besides the products, which gemm.h computes. Each is written once over the
// type T of weights and of products' inputs (float, half, bfloat16) and exported under a name for each type: a suffix
// _f32, _f16, _bf16. The residual stream, norms, softmax and sums are float throughout.
//
// A row's result does not depend on what else is in a launch: every reduction has an order that is fixed by the row
// alone. Multiplications and additions whose contraction could differ between two kernels are written as intrinsics.
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) float name[]
#else
#include "host.h"
#define DYNAMIC_SHARED(name) float *name = host::gpu.dynamic
#endif

namespace {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

__device__ inline float warp_sum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// A launch may begin before the one before it has ended (Gpu::launch); what it reads of that comes after this. All
// kernels call it, so that all that came before has ended too.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// c (16, 8) += a (16, 16) b (16, 8)
#ifdef __CUDACC__
#define MMA(T, type)                                                                                                  \
  __device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {                   \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                                               \
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                                      \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                              \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                              \
  }
MMA(__half, "f16")
MMA(__nv_bfloat16, "bf16")
__device__ inline void load_transposed(unsigned (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((unsigned)__cvta_generic_to_shared(row)));
}
#else
inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
  mma_of<__half>(c, a, b0, b1, __half2float);
}
inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __nv_bfloat16) {
  mma_of<__nv_bfloat16>(c, a, b0, b1, __bfloat162float);
}
#endif
__device__ inline unsigned pack(float x, float y, __half) {
  __half2 both = __floats2half2_rn(x, y);
  return *reinterpret_cast<unsigned *>(&both);
}
__device__ inline unsigned pack(float x, float y, __nv_bfloat16) {
  __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<unsigned *>(&both);
}

constexpr int TILE = 32; // keys of a tile: positions of a block of the cache

} // namespace

#include "gemm.h"

namespace {

// x (M, width) = words[ids] + positions[at] (+ kinds[kind]). A block for each row.
template <typename T>
__device__ void embed(float *x, const T *words, const T *positions, const T *kinds, const int *ids, const int *at,
                      const int *kind, int width) {
  size_t row = blockIdx.x;
  const T *word = words + (size_t)ids[row] * width, *position = positions + (size_t)at[row] * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = to_float(word[i]);
    if (kinds) sum += to_float(kinds[(size_t)kind[row] * width + i]);
    x[row * width + i] = sum + to_float(position[i]);
  }
}

// out (rows, width) = (x - mean) / sqrt(variance + eps) * weight + bias of x's rows `from`, or of all; as floats too
// where `same` is given, which may be x. A warp for each row, 4 in a block; two passes, over registers where a row fits.
// `pitch`: elements from one row of x to the next.
template <typename T>
__device__ void layer_norm(T *out, float *same, const float *x, const int *from, const float *weight,
                           const float *bias, int width, int pitch, float eps, int rows) {
  constexpr int MOST = 8; // fours of a lane
  int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float *in = x + (size_t)(from ? from[row] : row) * pitch;
  out += (size_t)row * width;
  if (same) same += (size_t)row * width;
  if (width % 4 == 0 && pitch % 4 == 0 && width <= 128 * MOST) {
    float4 v[MOST];
    float sum = 0;
#pragma unroll
    for (int c = 0; c < MOST; c++) {
      v[c] = {0, 0, 0, 0};
      if (c * 128 + lane * 4 < width) v[c] = *(const float4 *)(in + c * 128 + lane * 4);
    }
#pragma unroll
    for (int c = 0; c < MOST; c++) sum += (v[c].x + v[c].y) + (v[c].z + v[c].w);
    float mean = warp_sum(sum) / width;
    sum = 0;
#pragma unroll
    for (int c = 0; c < MOST; c++) {
      if (c * 128 + lane * 4 >= width) continue;
      v[c].x -= mean, v[c].y -= mean, v[c].z -= mean, v[c].w -= mean;
      sum += (v[c].x * v[c].x + v[c].y * v[c].y) + (v[c].z * v[c].z + v[c].w * v[c].w);
    }
    float scale = 1.0f / sqrtf(warp_sum(sum) / width + eps);
#pragma unroll
    for (int c = 0; c < MOST; c++) {
      int i = c * 128 + lane * 4;
      if (i >= width) continue;
      float4 w = *(const float4 *)(weight + i), b = *(const float4 *)(bias + i), y;
      y.x = v[c].x * scale * w.x + b.x, y.y = v[c].y * scale * w.y + b.y;
      y.z = v[c].z * scale * w.z + b.z, y.w = v[c].w * scale * w.w + b.w;
      if constexpr (sizeof(T) == 2) {
        uint2 halves = {pack(y.x, y.y, T()), pack(y.z, y.w, T())};
        *(uint2 *)(out + i) = halves;
      } else {
        *(float4 *)(out + i) = y;
      }
      if (same) *(float4 *)(same + i) = y;
    }
    return;
  }
  float sum = 0;
  for (int i = lane; i < width; i += 32) sum += in[i];
  float mean = warp_sum(sum) / width;
  sum = 0;
  for (int i = lane; i < width; i += 32) sum += (in[i] - mean) * (in[i] - mean);
  float scale = 1.0f / sqrtf(warp_sum(sum) / width + eps);
  for (int i = lane; i < width; i += 32) {
    float y = (in[i] - mean) * scale * weight[i] + bias[i];
    out[i] = from_float<T>(y);
    if (same) same[i] = y;
  }
}

// out (rows, width): x's rows `from`, or all, as T; they lie `pitch` elements apart.
template <typename T> __device__ void gather(T *out, const float *x, const int *from, int width, int pitch) {
  const float *in = x + (size_t)(from ? from[blockIdx.x] : blockIdx.x) * pitch;
  for (int i = threadIdx.x; i < width; i += blockDim.x) out[(size_t)blockIdx.x * width + i] = from_float<T>(in[i]);
}

constexpr int SPLIT = 128; // keys whose softmax is one part; parts are merged in order
constexpr int ROWS = 16;   // queries of a block
constexpr int WARPS = 4;
constexpr int WIDE = 4; // a head's width is at most WIDE * 32

// Keys and values of one layer. Paged: (block, layers, 2, heads, TILE, dim) at this layer; else the rows of qkv.
template <typename T> struct Source {
  const T *base;
  const int *table; // paged: the sequence's blocks
  size_t stride;    // paged: elements of a block; else of a row of qkv
  int heads, dim;
  bool paged;
  __device__ const T *at(int key, int which, int head) const {
    if (paged) {
      size_t part = ((size_t)which * heads + head) * TILE + key % TILE;
      return base + (size_t)table[key / TILE] * stride + part * dim;
    }
    return base + (size_t)key * stride + ((size_t)(which + 1) * heads + head) * dim;
  }
};

struct Part {
  float max, sum, mixed[WIDE];
  __device__ void clear() {
    max = -CUDART_INF_F, sum = 0;
    #pragma unroll
    for (int c = 0; c < WIDE; c++) mixed[c] = 0;
  }
  __device__ void merge(const Part &other) {
    if (other.max == -CUDART_INF_F) return;
    float both = fmaxf(max, other.max), a = expf(max - both), b = expf(other.max - both);
    sum = __fmaf_rn(sum, a, __fmul_rn(other.sum, b));
    #pragma unroll
    for (int c = 0; c < WIDE; c++) mixed[c] = __fmaf_rn(mixed[c], a, __fmul_rn(other.mixed[c], b));
    max = both;
  }
};

// softmax(q k^T * scale) v. An item is up to ROWS queries of one sequence: {sequence, first row, position of that row,
// rows}, causal; not causal: {first row of the text, first row, length, rows}. Grid (items, heads, parts): with one
// part a block goes through all keys; with several it goes through SPLIT of them, and `combine` merges. Both give the
// same bits. Lanes are keys for the scores, and elements of the head for the sums.
template <typename T>
__device__ void attention(T *out, const T *qkv, const T *cache, const int4 *items, const int *tables, int table_stride,
                          size_t block_stride, int heads, int dim, float scale, float *parts, int causal) {
  DYNAMIC_SHARED(shared);
  int4 item = items[blockIdx.x];
  int count = item.w, head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int longest = causal ? item.z + count : item.z;
  int first = parts ? blockIdx.z * SPLIT : 0, end = parts ? min(first + SPLIT, longest) : longest;
  if (count == 0 || first >= end) return;
  int width = heads * dim, pitch = dim + 1;
  Source<T> source{cache, tables + (size_t)item.x * table_stride, block_stride, heads, dim, true};
  if (!causal) source = {qkv + (size_t)item.x * 3 * width, nullptr, (size_t)3 * width, heads, dim, false};
  float *keys = shared, *values = keys + TILE * pitch, *queries = values + TILE * dim;
  for (int i = threadIdx.x; i < count * dim; i += blockDim.x) {
    queries[i] = to_float(qkv[(size_t)(item.y + i / dim) * 3 * width + head * dim + i % dim]);
  }
  Part all[ROWS / WARPS], part[ROWS / WARPS];
  #pragma unroll
  for (int r = 0; r < ROWS / WARPS; r++) all[r].clear(), part[r].clear();
  for (int tile = first; tile < end; tile += TILE) {
    __syncthreads();
    constexpr int VECTOR = 16 / sizeof(T);
    if (dim % VECTOR == 0) {
      for (int i = threadIdx.x * VECTOR; i < TILE * dim; i += blockDim.x * VECTOR) {
        int key = tile + i / dim, at = i % dim;
        uint4 k = {}, v = {};
        if (key < longest) {
          k = *reinterpret_cast<const uint4 *>(source.at(key, 0, head) + at);
          v = *reinterpret_cast<const uint4 *>(source.at(key, 1, head) + at);
        }
        for (int e = 0; e < VECTOR; e++) {
          keys[(i / dim) * pitch + at + e] = to_float(reinterpret_cast<const T *>(&k)[e]);
          values[i + e] = to_float(reinterpret_cast<const T *>(&v)[e]);
        }
      }
    } else {
      for (int i = threadIdx.x; i < TILE * dim; i += blockDim.x) {
        int key = tile + i / dim, at = i % dim;
        keys[(i / dim) * pitch + at] = key < longest ? to_float(source.at(key, 0, head)[at]) : 0.0f;
        values[i] = key < longest ? to_float(source.at(key, 1, head)[at]) : 0.0f;
      }
    }
    __syncthreads();
    #pragma unroll
    for (int r = 0; r < ROWS / WARPS; r++) {
      int row = r * WARPS + warp;
      int visible = causal ? item.z + row + 1 : item.z;
      if (row >= count || tile >= visible) continue;
      float score = 0;
      for (int d = 0; d < dim; d++) score = __fmaf_rn(queries[row * dim + d], keys[lane * pitch + d], score);
      score = tile + lane < visible ? __fmul_rn(score, scale) : -CUDART_INF_F;
      Part &p = part[r];
      float most = fmaxf(p.max, warp_max(score)), base = most == -CUDART_INF_F ? 0.0f : most;
      float fade = expf(p.max - base), weight = expf(score - base);
      p.sum = __fmaf_rn(p.sum, fade, warp_sum(weight));
      p.max = most;
      #pragma unroll
      for (int c = 0; c < WIDE; c++) p.mixed[c] = __fmul_rn(p.mixed[c], fade);
      for (int j = 0; j < min(TILE, visible - tile); j++) {
        float w = __shfl_sync(~0u, weight, j);
        #pragma unroll
        for (int c = 0; c < WIDE; c++) {
          if (c * 32 + lane < dim) p.mixed[c] = __fmaf_rn(w, values[j * dim + c * 32 + lane], p.mixed[c]);
        }
      }
    }
    if (!parts && (tile + TILE) % SPLIT == 0) {
      #pragma unroll
      for (int r = 0; r < ROWS / WARPS; r++) all[r].merge(part[r]), part[r].clear();
    }
  }
  #pragma unroll
  for (int r = 0; r < ROWS / WARPS; r++) {
    int row = r * WARPS + warp;
    if (row >= count) continue;
    if (parts) {
      // (row, heads, parts, dim + 2)
      float *to = parts + (((size_t)(item.y + row) * heads + head) * gridDim.z + blockIdx.z) * (dim + 2);
      if (lane == 0) to[0] = part[r].max, to[1] = part[r].sum;
      #pragma unroll
      for (int c = 0; c < WIDE; c++) if (c * 32 + lane < dim) to[2 + c * 32 + lane] = part[r].mixed[c];
      continue;
    }
    all[r].merge(part[r]);
    T *to = out + (size_t)(item.y + row) * width + head * dim;
    #pragma unroll
    for (int c = 0; c < WIDE; c++) {
      if (c * 32 + lane < dim) to[c * 32 + lane] = from_float<T>(__fdiv_rn(all[r].mixed[c], all[r].sum));
    }
  }
}

// `attention` on tensor cores, for half types and heads of DIM elements: items of up to 64 queries, 16 for each of 4
// warps. A tile's softmax, a part's end and the merge are those of `attention`; weights are rounded to T for the second
// product. A key that a query does not see has weight 0, which changes no bit of a sum, so a row's bits do not depend
// on the rows beside it. Of m16n8k16's fragments a lane has rows lane / 4 and lane / 4 + 8, columns 2 (lane % 4) and
// the next.
template <typename T, int DIM>
__device__ void attention_mma(T *out, const T *qkv, const T *cache, const int4 *items, const int *tables,
                              int table_stride, size_t block_stride, int heads, float scale, float *parts, int causal) {
  constexpr int LOAD = 64, PITCH = DIM + 8, STEPS = DIM / 16, WIDTH = DIM / 8;
  __shared__ __align__(16) T both[2][2][LOAD][PITCH]; // two stages of keys and values
  int4 item = items[blockIdx.x];
  int count = item.w, head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int g = lane / 4, t = lane % 4;
  int longest = causal ? item.z + count : item.z;
  int first = parts ? blockIdx.z * SPLIT : 0, end = parts ? min(first + SPLIT, longest) : longest;
  if (count == 0 || first >= end) return;
  int width = heads * DIM;
  Source<T> source{cache, tables + (size_t)item.x * table_stride, block_stride, heads, DIM, true};
  if (!causal) source = {qkv + (size_t)item.x * 3 * width, nullptr, (size_t)3 * width, heads, DIM, false};
  int rows[2] = {warp * 16 + g, warp * 16 + g + 8};
  int visible[2];
  unsigned query[STEPS][4];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    visible[r] = causal ? item.z + rows[r] + 1 : item.z;
    const T *from = qkv + (size_t)(item.y + rows[r]) * 3 * width + head * DIM + 2 * t;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
      query[k][r] = rows[r] < count ? *reinterpret_cast<const unsigned *>(from + 16 * k) : 0;
      query[k][r + 2] = rows[r] < count ? *reinterpret_cast<const unsigned *>(from + 16 * k + 8) : 0;
    }
  }
  // The keys that any row of this warp sees end here.
  int last = warp * 16 >= count ? 0 : causal ? item.z + min(warp * 16 + 16, count) : item.z;
  float all[WIDTH][4], part[WIDTH][4];
  float all_max[2], all_sum[2], part_max[2], part_sum[2];
  auto clear = [&](float (&mixed)[WIDTH][4], float (&max)[2], float (&sum)[2]) {
#pragma unroll
    for (int j = 0; j < WIDTH; j++) mixed[j][0] = mixed[j][1] = mixed[j][2] = mixed[j][3] = 0;
    max[0] = max[1] = -CUDART_INF_F, sum[0] = sum[1] = 0;
  };
  clear(all, all_max, all_sum);
  clear(part, part_max, part_sum);
  auto merge = [&]() {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (part_max[r] == -CUDART_INF_F) continue;
      float both = fmaxf(all_max[r], part_max[r]);
      float a = expf(all_max[r] - both), b = expf(part_max[r] - both);
      all_sum[r] = __fmaf_rn(all_sum[r], a, __fmul_rn(part_sum[r], b));
      all_max[r] = both;
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        all[j][2 * r] = __fmaf_rn(all[j][2 * r], a, __fmul_rn(part[j][2 * r], b));
        all[j][2 * r + 1] = __fmaf_rn(all[j][2 * r + 1], a, __fmul_rn(part[j][2 * r + 1], b));
      }
    }
  };
  auto load = [&](int from, int stage) {
#pragma unroll
    for (int i = threadIdx.x; i < LOAD * WIDTH; i += 128) {
      int key = i / WIDTH, at = i % WIDTH * 8;
      bool valid = from + key < longest;
      copy_async(&both[stage][0][key][at], valid ? source.at(from + key, 0, head) + at : qkv, valid);
      copy_async(&both[stage][1][key][at], valid ? source.at(from + key, 1, head) + at : qkv, valid);
    }
  };
  load(first, 0);
  commit_copies();
  for (int from = first, stage = 0; from < end; from += LOAD, stage ^= 1) {
    if (from + LOAD < end) load(from + LOAD, stage ^ 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const T(*keys)[PITCH] = both[stage][0], (*values)[PITCH] = both[stage][1];
    for (int tile = from; tile < min(from + LOAD, end); tile += TILE) {
      if (tile < last) {
        float score[4][4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          score[j][0] = score[j][1] = score[j][2] = score[j][3] = 0;
          const T *key = &keys[tile - from + 8 * j + g][2 * t];
#pragma unroll
          for (int k = 0; k < STEPS; k++) {
            mma(score[j], query[k], *reinterpret_cast<const unsigned *>(key + 16 * k),
                *reinterpret_cast<const unsigned *>(key + 16 * k + 8), T());
          }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
          float most = part_max[r];
#pragma unroll
          for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
              bool sees = tile + 8 * j + 2 * t + e % 2 < visible[r];
              score[j][e] = sees ? __fmul_rn(score[j][e], scale) : -CUDART_INF_F;
              most = fmaxf(most, score[j][e]);
            }
          }
          most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
          most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
          float base = most == -CUDART_INF_F ? 0.0f : most, fade = __expf(part_max[r] - base), sum = 0;
#pragma unroll
          for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
              score[j][e] = __expf(score[j][e] - base);
              sum = __fadd_rn(sum, score[j][e]);
            }
          }
          sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
          sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
          part_sum[r] = __fmaf_rn(part_sum[r], fade, sum);
          part_max[r] = most;
#pragma unroll
          for (int j = 0; j < WIDTH; j++) {
            part[j][2 * r] = __fmul_rn(part[j][2 * r], fade);
            part[j][2 * r + 1] = __fmul_rn(part[j][2 * r + 1], fade);
          }
        }
        unsigned weight[2][4];
#pragma unroll
        for (int k = 0; k < 2; k++) {
          weight[k][0] = pack(score[2 * k][0], score[2 * k][1], T());
          weight[k][1] = pack(score[2 * k][2], score[2 * k][3], T());
          weight[k][2] = pack(score[2 * k + 1][0], score[2 * k + 1][1], T());
          weight[k][3] = pack(score[2 * k + 1][2], score[2 * k + 1][3], T());
        }
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          unsigned b[4]; // of 32 keys
          load_transposed(b, &values[tile - from + lane][8 * j]);
          mma(part[j], weight[0], b[0], b[1], T());
          mma(part[j], weight[1], b[2], b[3], T());
        }
      }
      if (!parts && (tile + TILE) % SPLIT == 0) merge(), clear(part, part_max, part_sum);
    }
    __syncthreads(); // this stage is filled again in the next turn
  }
  if (!parts) merge();
#pragma unroll
  for (int r = 0; r < 2; r++) {
    if (rows[r] >= count) continue;
    if (parts) {
      float *to = parts + (((size_t)(item.y + rows[r]) * heads + head) * gridDim.z + blockIdx.z) * (DIM + 2);
      if (t == 0) to[0] = part_max[r], to[1] = part_sum[r];
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        to[2 + 8 * j + 2 * t] = part[j][2 * r];
        to[2 + 8 * j + 2 * t + 1] = part[j][2 * r + 1];
      }
      continue;
    }
    T *to = out + (size_t)(item.y + rows[r]) * width + head * DIM + 2 * t;
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      unsigned both = pack(__fdiv_rn(all[j][2 * r], all_sum[r]), __fdiv_rn(all[j][2 * r + 1], all_sum[r]), T());
      *reinterpret_cast<unsigned *>(to + 8 * j) = both;
    }
  }
}

// The parts of `attention`, in order. Grid (items, heads); a warp takes every so many rows as there are warps.
template <typename T>
__device__ void combine(T *out, const float *parts, const int4 *items, int count_of_parts, int heads, int dim,
                        int causal) {
  int4 item = items[blockIdx.x];
  int lane = threadIdx.x % 32, head = blockIdx.y;
  for (int row = threadIdx.x / 32; row < item.w; row += blockDim.x / 32) {
    int visible = causal ? item.z + row + 1 : item.z;
    const float *from = parts + ((size_t)(item.y + row) * heads + head) * count_of_parts * (dim + 2);
    Part all;
    all.clear();
    for (int p = 0; p * SPLIT < visible; p++, from += dim + 2) {
      Part part;
      part.clear();
      part.max = from[0], part.sum = from[1];
#pragma unroll
      for (int c = 0; c < WIDE; c++) if (c * 32 + lane < dim) part.mixed[c] = from[2 + c * 32 + lane];
      all.merge(part);
    }
    T *to = out + (size_t)(item.y + row) * heads * dim + head * dim;
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
      if (c * 32 + lane < dim) to[c * 32 + lane] = from_float<T>(__fdiv_rn(all.mixed[c], all.sum));
    }
  }
}

} // namespace

// out (texts, width): of each text {first row, rows} of x (M, width) the first row that counts, or the mean. The first
// `skipped` rows do not count, unless the text has no others. A block for each text; rows are added in order.
extern "C" __global__ void pool_f32(float *out, const float *x, const int2 *texts, int width, int mean, int skipped) {
  wait_for_previous();
  int2 text = texts[blockIdx.x];
  int first = skipped < text.y ? skipped : 0, count = mean ? text.y - first : 1;
  const float *from = x + (size_t)(text.x + first) * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = 0;
    for (int row = 0; row < count; row++) sum = __fadd_rn(sum, from[(size_t)row * width + i]);
    out[(size_t)blockIdx.x * width + i] = __fdiv_rn(sum, (float)count);
  }
}

// The likeliest token of each row of logits, the first of several; -1 where one is not a number or infinite upwards.
extern "C" __global__ void argmax_f32(int *best, const float *logits, int vocabulary, int stride) {
  __shared__ float most_of[32];
  __shared__ int id_of[32];
  wait_for_previous();
  const float *row = logits + (size_t)blockIdx.x * stride;
  float most = -CUDART_INF_F;
  int id = 0x7fffffff, broken = 0;
  auto look = [&](float x, int i) {
    if (i >= vocabulary) return;
    broken |= isnan(x) || x == CUDART_INF_F;
    if (x > most) most = x, id = i;
  };
  constexpr int FOURS = 4; // on their way at once; the stride is a multiple of 4
  for (int first = threadIdx.x * 4; first < vocabulary; first += FOURS * blockDim.x * 4) {
    float4 four[FOURS];
#pragma unroll
    for (int c = 0; c < FOURS; c++) {
      int i = first + c * blockDim.x * 4;
      four[c] = i < vocabulary ? *(const float4 *)(row + i) : float4{};
    }
#pragma unroll
    for (int c = 0; c < FOURS; c++) {
      int i = first + c * blockDim.x * 4;
      look(four[c].x, i), look(four[c].y, i + 1), look(four[c].z, i + 2), look(four[c].w, i + 3);
    }
  }
  broken = __syncthreads_or(broken);
  for (int offset = 16; offset > 0; offset /= 2) {
    float other = __shfl_xor_sync(~0u, most, offset);
    int its = __shfl_xor_sync(~0u, id, offset);
    if (other > most || (other == most && its < id)) most = other, id = its;
  }
  if (threadIdx.x % 32 == 0) most_of[threadIdx.x / 32] = most, id_of[threadIdx.x / 32] = id;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < (int)blockDim.x / 32; w++) {
      if (most_of[w] > most || (most_of[w] == most && id_of[w] < id)) most = most_of[w], id = id_of[w];
    }
    best[blockIdx.x] = broken || id == 0x7fffffff ? -1 : id;
  }
}

#define EXPORT(T, name)                                                                                               \
  extern "C" __global__ void embed_##name(float *x, const T *words, const T *positions, const T *kinds,              \
                                          const int *ids, const int *at, const int *kind, int width) {               \
    wait_for_previous();                                                                                              \
    embed<T>(x, words, positions, kinds, ids, at, kind, width);                                                       \
  }                                                                                                                   \
  extern "C" __global__ void layer_norm_##name(T *out, float *same, const float *x, const int *from,                 \
                                               const float *weight, const float *bias, int width, int pitch,         \
                                               float eps, int rows) {                                                 \
    wait_for_previous();                                                                                              \
    layer_norm<T>(out, same, x, from, weight, bias, width, pitch, eps, rows);                                         \
  }                                                                                                                   \
  extern "C" __global__ void gather_##name(T *out, const float *x, const int *from, int width, int pitch) {          \
    wait_for_previous();                                                                                              \
    gather<T>(out, x, from, width, pitch);                                                                            \
  }                                                                                                                   \
  extern "C" __global__ void place_##name(T *out, const T *in, int rows, int columns, int pitch, int transposed) {   \
    wait_for_previous();                                                                                              \
    place<T>(out, in, rows, columns, pitch, transposed);                                                              \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(128)                                                                   \
      attention_##name(T *out, const T *qkv, const T *cache, const int4 *items, const int *tables, int table_stride, \
                       size_t block_stride, int heads, int dim, float scale, float *parts, int causal) {             \
    wait_for_previous();                                                                                              \
    attention<T>(out, qkv, cache, items, tables, table_stride, block_stride, heads, dim, scale, parts, causal);       \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(512)                                                                   \
      combine_##name(T *out, const float *parts, const int4 *items, int count, int heads, int dim, int causal) {     \
    wait_for_previous();                                                                                              \
    combine<T>(out, parts, items, count, heads, dim, causal);                                                         \
  }

#define EXPORT_MMA(T, name, DIM)                                                                                      \
  extern "C" __global__ void __launch_bounds__(128)                                                                   \
      attention##DIM##_##name(T *out, const T *qkv, const T *cache, const int4 *items, const int *tables,            \
                              int table_stride, size_t block_stride, int heads, int, float scale, float *parts,      \
                              int causal) {                                                                          \
    wait_for_previous();                                                                                              \
    attention_mma<T, DIM>(out, qkv, cache, items, tables, table_stride, block_stride, heads, scale, parts, causal);   \
  }

EXPORT_MMA(__half, f16, 32)
EXPORT_MMA(__half, f16, 64)
EXPORT_MMA(__nv_bfloat16, bf16, 32)
EXPORT_MMA(__nv_bfloat16, bf16, 64)
EXPORT(float, f32)
EXPORT(__half, f16)
EXPORT(__nv_bfloat16, bf16)

#define GEMM(T, name, kernel, threads, blocks, function, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(threads, blocks)                                                       \
      kernel##_##name(void *y, const T *x, const T *w, const float *bias, int rows, int input, int output, int pitch, \
                      int to, int activation, T *cache, const int *slots, long stride, int dim) {                     \
    Append<T> append = {cache, slots, stride, dim};                                                                   \
    function<__VA_ARGS__>(y, x, w, bias, rows, input, output, pitch, to, activation, append);                         \
  }
// The tiles that cuda/linear.rs chooses from.
#define GEMM_HALF(T, name)                                                                                            \
  GEMM(T, name, wgmma128x192, 256, 1, gemm_wgmma, T, 128, 192, 5)                                                     \
  GEMM(T, name, wgmma128x128, 256, 1, gemm_wgmma, T, 128, 128, 6)                                                     \
  GEMM(T, name, gemm128x128, 128, 2, gemm, T, 128, 128, 64, 64, 64, 3)                                                \
  GEMM(T, name, gemm64x64, 128, 3, gemm, T, 64, 64, 32, 32, 64, 4)                                                    \
  GEMM(T, name, gemm64x32, 128, 3, gemm, T, 64, 32, 32, 16, 128, 3)                                                   \
  GEMM(T, name, gemm32x32, 128, 3, gemm, T, 32, 32, 16, 16, 128, 5)                                                   \
  GEMM(T, name, gemm16x32, 128, 2, gemm, T, 16, 32, 16, 8, 128, 8)
GEMM_HALF(__half, f16)
GEMM_HALF(__nv_bfloat16, bf16)
GEMM(float, f32, gemm128x64, 128, 3, gemm_floats, 128, 64, 8, 8, 16, 3)
GEMM(float, f32, gemm64x64, 256, 2, gemm_floats, 64, 64, 4, 4, 16, 4)
GEMM(float, f32, gemm16x32, 128, 2, gemm_floats, 16, 32, 1, 4, 64, 6)
