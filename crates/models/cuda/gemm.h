// y = x W + b. The sum over K runs from its first element to its last in one chain of additions, whatever the tile, so
// that an element's bits depend on its row of x and its column of W alone. A tile is chosen for speed only.
//
// Half types have W as rows of columns (N, K), in steps of 16 on tensor cores: mma.sync, or Hopper's wgmma; floats have
// (K, N) and go element by element.
#pragma once

#ifdef __CUDACC__
// 16 bytes from global to shared memory, behind the thread's back; zeros where they are not `valid`.
__device__ inline void copy_async(void *to, const void *from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)),
               "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups of copies but the last N.
template <int N> __device__ inline void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
__device__ inline void load_matrices(unsigned (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((unsigned)__cvta_generic_to_shared(row)));
}
#endif

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA
#endif
#if defined(__CUDACC__) && defined(HAS_WGMMA)
// What ordinary instructions wrote to shared memory is seen by wgmma's after this and a barrier.
__device__ inline void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void begin_wgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_wgmma() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void wait_wgmma() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Rows of 128 bytes, whose chunks of 16 are swizzled by the row; 1,024 bytes from 8 rows to the next.
__device__ inline unsigned long long rows_of_128(const void *at) {
  unsigned long long start = ((unsigned)__cvta_generic_to_shared(at) & 0x3ffff) >> 4;
  return start | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
#define D4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D32(d, i)                                                                                                     \
  D4(d, i), D4(d, i + 4), D4(d, i + 8), D4(d, i + 12), D4(d, i + 16), D4(d, i + 20), D4(d, i + 24), D4(d, i + 28)
#define REGISTERS_64 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
  "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
  "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define REGISTERS_96 \
  REGISTERS_64 "," \
  "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88," \
  "%89,%90,%91,%92,%93,%94,%95"
#define WGMMA(T, type, n, count, a_at, b_at, ...)                                                                     \
  __device__ inline void wgmma(float (&d)[count], unsigned long long a, unsigned long long b, T) {                    \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" REGISTERS_##count "}, " a_at     \
                 ", " b_at ", 1, 1, 1, 0, 0;"                                                                         \
                 : __VA_ARGS__                                                                                        \
                 : "l"(a), "l"(b));                                                                                   \
  }
#define WGMMAS(T, type)                                                                                               \
  WGMMA(T, type, "128", 64, "%64", "%65", D32(d, 0), D32(d, 32))                                                      \
  WGMMA(T, type, "192", 96, "%96", "%97", D32(d, 0), D32(d, 32), D32(d, 64))
WGMMAS(__half, "f16")
WGMMAS(__nv_bfloat16, "bf16")
// d (64, N) += a (64, 16) b (N, 16)', for a group of 4 warps; `k`: elements into the rows of 64.
template <typename T, int N> __device__ inline void wgmma_step(float (&d)[N], const T *a, const T *b, int k) {
  wgmma(d, rows_of_128(a) + k / 8, rows_of_128(b) + k / 8, T());
}
#endif

namespace {

// 0 GELU with the error function, 1 its tanh approximation, 2 ReLU, 3 SiLU, 4 tanh.
template <typename T> __device__ inline float activated(float v, int kind) {
  if (kind == 0) return 0.5f * v * (1.0f + erff(v * 0.70710678f));
  if (kind == 1) {
    float u = 0.79788456f * (v + 0.044715f * v * v * v);
    if constexpr (sizeof(T) == 4) return 0.5f * v * (1.0f + tanhf(u));
    return __fdividef(v, 1.0f + __expf(-2.0f * u)); // the same; its error is far below T's
  }
  if (kind == 2) return fmaxf(v, 0.0f);
  if (kind == 3) return v / (1.0f + expf(-v));
  if (kind == 4) return tanhf(v);
  return v;
}

// out (rows, pitch) = in (rows, columns), or its transpose, which lies as (columns, rows).
template <typename T>
__device__ void place(T *out, const T *in, int rows, int columns, int pitch, int transposed) {
  long count = (long)rows * columns;
  for (long i = blockIdx.x * (long)blockDim.x + threadIdx.x; i < count; i += (long)gridDim.x * blockDim.x) {
    long row = i / columns, column = i % columns;
    out[row * pitch + column] = transposed ? in[column * rows + row] : in[i];
  }
}

// What y is: of type T; floats, whose rows lie at multiples of 16 bytes; floats to which the product is added.
enum { SAME, FLOATS, ADDED };

// Where the keys and values of x's rows go, where y (rows, 3, heads, dim) is queries, keys and values: into blocks of
// the cache (see Source), at `slots` (block * TILE + place, or -1).
template <typename T> struct Append {
  T *cache;
  const int *slots;
  long stride;
  int dim;
  __device__ void put(int row, int n, int output, const float *v) const {
    int width = output / 3, slot = slots[row];
    if (slot < 0) return;
    T *block = cache + (size_t)(slot / TILE) * stride;
    for (int e = 0; e < 4; e++) {
      int i = n + e - width; // of keys, then of values
      if (i < 0 || i >= 2 * width) continue;
      block[((size_t)(i / dim) * TILE + slot % TILE) * dim + i % dim] = from_float<T>(v[e]);
    }
  }
};

// A block's sums, BM rows of BN + 8 in shared memory: bias, activation, and into y. By way of shared memory, so that
// neighbours write neighbours, and that an activation is compiled once and not for each sum in a register.
template <typename T, int BM, int BN, int THREADS>
__device__ void finish(void *y, const float *sums, const float *bias, int rows, int output, int to, int activation,
                       Append<T> append) {
  int first = blockIdx.x * BM, column = blockIdx.y * BN, pitch = to == FLOATS ? (output + 3) / 4 * 4 : output;
  for (int i = threadIdx.x; i < BM * BN / 4; i += THREADS) {
    int row = first + i / (BN / 4), n = column + i % (BN / 4) * 4;
    if (row >= rows || n >= output) continue;
    float4 four = *(const float4 *)(sums + i / (BN / 4) * (BN + 8) + i % (BN / 4) * 4);
    float v[4] = {four.x, four.y, four.z, four.w};
    if (bias) { // padded to a multiple of 4
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] += bias[n + e];
    }
    if (activation >= 0) {
#pragma unroll 1
      for (int e = 0; e < 4; e++) {
        float next = activated<T>(v[0], activation); // in turn, so that v stays in registers
        v[0] = v[1], v[1] = v[2], v[2] = v[3], v[3] = next;
      }
    }
    if (append.cache) append.put(row, n, output, v);
    size_t at = (size_t)row * pitch + n;
    if (pitch % 4 != 0) {
      for (int e = 0; e < 4 && n + e < output; e++) {
        if (to == SAME) ((T *)y)[at + e] = from_float<T>(v[e]);
        else ((float *)y)[at + e] += v[e];
      }
      continue;
    }
    if constexpr (sizeof(T) == 2) {
      if (to == SAME) {
        uint2 halves = {pack(v[0], v[1], T()), pack(v[2], v[3], T())};
        *(uint2 *)((T *)y + at) = halves;
        continue;
      }
    }
    float4 *out = (float4 *)((float *)y + at);
    if (to == ADDED) {
      float4 was = *out;
      v[0] += was.x, v[1] += was.y, v[2] += was.z, v[3] += was.w;
    }
    *out = float4{v[0], v[1], v[2], v[3]};
  }
}

// How a thread copies ROWS rows of BK elements of a matrix (rows, pitch) into shared memory: the same chunk of 8 of
// every DOWN-th row, at a place that no two of 8 rows share (for BK of 64, as wgmma's swizzle of 128 bytes has it).
// ALIGNED: the pitch is a multiple of 8.
template <typename T, int ROWS, int BK, int THREADS, bool ALIGNED> struct Copier {
  static constexpr int CHUNKS = BK / 8, DOWN = THREADS / CHUNKS;
  static_assert(DOWN % 8 == 0 && ROWS % DOWN == 0);
  const T *base, *from;
  int left, k, input, pitch; // rows that are there from this thread's first on
  int at;
  __device__ Copier(const T *base, int first, int rows, int input, int pitch)
      : base(base), input(input), pitch(pitch) {
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    k = chunk * 8, left = rows - first - row;
    from = base + (size_t)(first + row) * pitch + k;
    at = row * BK + (chunk ^ (row & 7)) * 8;
  }
  __device__ void copy(T *stage, int step) const {
    stage += at;
    const T *start = from + step * BK;
    bool inside = step * BK + k < input;
    if (ALIGNED || pitch % 8 == 0) {
#pragma unroll
      for (int i = 0; i < ROWS / DOWN; i++) {
        bool valid = inside && i * DOWN < left;
        copy_async(stage + i * DOWN * BK, valid ? start + (size_t)i * DOWN * pitch : base, valid);
      }
      return;
    }
    for (int i = 0; i < ROWS / DOWN; i++) { // rows that do not lie at multiples of 16 bytes
      for (int e = 0; e < 8; e++) {
        bool valid = i * DOWN < left && step * BK + k + e < input;
        stage[i * DOWN * BK + e] = valid ? start[(size_t)i * DOWN * pitch + e] : from_float<T>(0.0f);
      }
    }
  }
};

// Parts of BK of K of both matrices on their way into STAGES places of shared memory, AHEAD of them at once. W's first
// parts are asked for before the launch waits for the one before it.
template <typename T, int BM, int BN, int BK, int THREADS, int STAGES, int AHEAD> struct Pipeline {
  T *space;
  int steps;
  Copier<T, BM, BK, THREADS, false> xs;
  Copier<T, BN, BK, THREADS, true> ws;
  __device__ Pipeline(float *shared, const T *x, const T *w, int rows, int input, int output, int pitch)
      : space(reinterpret_cast<T *>(shared)), steps((input + BK - 1) / BK),
        xs(x, blockIdx.x * BM, rows, input, input), ws(w, blockIdx.y * BN, output, pitch, pitch) {
#pragma unroll
    for (int step = 0; step < AHEAD; step++) if (step < steps) ws.copy(right(step), step);
    wait_for_previous();
#pragma unroll
    for (int step = 0; step < AHEAD; step++) {
      if (step < steps) xs.copy(left(step), step);
      commit_copies();
    }
  }
  __device__ T *left(int step) const { return space + step % STAGES * ((BM + BN) * BK); }
  __device__ T *right(int step) const { return left(step) + BM * BK; }
  // What this thread copies of a step has arrived; a barrier makes it so for all.
  __device__ void wait() const { wait_copies<AHEAD - 1>(); }
  // Asks for the part that is AHEAD steps after `step`.
  __device__ void ask(int step) const {
    if (int next = step + AHEAD; next < steps) ws.copy(right(next), next), xs.copy(left(next), next);
    commit_copies();
  }
};

// x (rows, input), W (output, pitch) with zeros from `input` to the pitch, a multiple of 8; y (rows, output). A block
// has BM rows and BN columns, a warp WM and WN of them. Grid (rows / BM, output / BN).
template <typename T, int BM, int BN, int WM, int WN, int BK, int STAGES>
__device__ void gemm(void *y, const T *x, const T *w, const float *bias, int rows, int input, int output, int pitch,
                     int to, int activation, Append<T> append) {
  constexpr int THREADS = BM / WM * (BN / WN) * 32;
  DYNAMIC_SHARED(shared);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int warp_m = warp / (BN / WN) * WM, warp_n = warp % (BN / WN) * WN;
  Pipeline<T, BM, BN, BK, THREADS, STAGES, STAGES - 1> parts(shared, x, w, rows, input, output, pitch);
  float sum[WM / 16][WN / 8][4];
#pragma unroll
  for (int i = 0; i < WM / 16; i++) {
#pragma unroll
    for (int j = 0; j < WN / 8; j++) sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0;
  }
  for (int step = 0; step < parts.steps; step++) {
    parts.wait();
    __syncthreads();
    parts.ask(step);
    const T *left = parts.left(step), *right = parts.right(step);
#pragma unroll
    for (int tile = 0; tile < BK / 32; tile++) {
      unsigned b[WN / 8][4];
#pragma unroll
      for (int j = 0; j < WN / 8; j++) { // of 32 elements of K
        int row = warp_n + 8 * j + lane % 8, chunk = tile * 4 + lane / 8;
        load_matrices(b[j], right + row * BK + (chunk ^ (row & 7)) * 8);
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        unsigned a[WM / 16][4];
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
          int row = warp_m + 16 * i + lane % 16, chunk = tile * 4 + half * 2 + lane / 16;
          load_matrices(a[i], left + row * BK + (chunk ^ (row & 7)) * 8);
        }
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
#pragma unroll
          for (int j = 0; j < WN / 8; j++) mma(sum[i][j], a[i], b[j][2 * half], b[j][2 * half + 1], T());
        }
      }
    }
  }
  wait_copies<0>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < WM / 16; i++) {
#pragma unroll
    for (int j = 0; j < WN / 8; j++) {
      float *to_row = shared + (warp_m + 16 * i + lane / 4) * (BN + 8) + warp_n + 8 * j + lane % 4 * 2;
      *(float2 *)to_row = float2{sum[i][j][0], sum[i][j][1]};
      *(float2 *)(to_row + 8 * (BN + 8)) = float2{sum[i][j][2], sum[i][j][3]};
    }
  }
  __syncthreads();
  finish<T, BM, BN, THREADS>(y, shared, bias, rows, output, to, activation, append);
}

// The same by Hopper's wgmma, which reads both matrices from shared memory: a group of 4 warps has 64 rows and all BN
// columns. A step's products run while the next step waits for its copies.
template <typename T, int BM, int BN, int STAGES>
__device__ void gemm_wgmma(void *y, const T *x, const T *w, const float *bias, int rows, int input, int output,
                           int pitch, int to, int activation, Append<T> append) {
#ifdef HAS_WGMMA
  constexpr int BK = 64, THREADS = BM * 2;
  DYNAMIC_SHARED(shared);
  int group = threadIdx.x / 128;
  Pipeline<T, BM, BN, BK, THREADS, STAGES, STAGES - 2> parts(shared, x, w, rows, input, output, pitch);
  float sum[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) sum[i] = 0;
  for (int step = 0; step < parts.steps; step++) {
    parts.wait();
    publish_shared();
    __syncthreads(); // all have ended the products of the step before the last: its stage is free
    begin_wgmma();
    const T *left = parts.left(step) + group * 64 * BK, *right = parts.right(step);
#pragma unroll
    for (int k = 0; k < BK; k += 16) wgmma_step(sum, left, right, k);
    commit_wgmma();
    parts.ask(step);
    wait_wgmma<1>();
  }
  wait_wgmma<0>();
  wait_copies<0>();
  __syncthreads();
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < BN / 8; j++) {
    float *to_row = shared + row * (BN + 8) + 8 * j + lane % 4 * 2;
    *(float2 *)to_row = float2{sum[4 * j], sum[4 * j + 1]};
    *(float2 *)(to_row + 8 * (BN + 8)) = float2{sum[4 * j + 2], sum[4 * j + 3]};
  }
  __syncthreads();
  finish<T, BM, BN, THREADS>(y, shared, bias, rows, output, to, activation, append);
#endif
}

// The same for floats, on ordinary cores; W (input, pitch) with a pitch of a multiple of 4. A thread has TM rows,
// BM / TM apart, and TN columns in fours.
template <int BM, int BN, int TM, int TN, int BK, int STAGES>
__device__ void gemm_floats(void *y, const float *x, const float *w, const float *bias, int rows, int input,
                            int output, int pitch, int to, int activation, Append<float> append) {
  constexpr int ACROSS = BN / TN, DOWN = BM / TM, THREADS = ACROSS * DOWN;
  constexpr int PITCH = BK + 4, STAGE = BM * PITCH + BN * BK;
  DYNAMIC_SHARED(space);
  int tx = threadIdx.x % ACROSS, ty = threadIdx.x / ACROSS;
  int first = blockIdx.x * BM, column = blockIdx.y * BN, steps = (input + BK - 1) / BK;
  // A thread copies the same four columns of W, and the same four elements of x, of every so many rows.
  constexpr int W_DOWN = THREADS / (BN / 4), X_DOWN = THREADS / (BK / 4);
  static_assert(BK % W_DOWN == 0 && BM % X_DOWN == 0);
  int w_k = threadIdx.x / (BN / 4), w_n = threadIdx.x % (BN / 4) * 4;
  int x_row = threadIdx.x / (BK / 4), x_k = threadIdx.x % (BK / 4) * 4, left_rows = rows - first - x_row;
  const float *w_from = w + (size_t)w_k * pitch + column + w_n, *x_from = x + (size_t)(first + x_row) * input + x_k;
  bool in_w = column + w_n < pitch;
  auto load_w = [&](int step) {
    float *stage = space + step % STAGES * STAGE + BM * PITCH + w_k * BN + w_n;
    const float *from = w_from + (size_t)step * BK * pitch;
    int left_k = input - step * BK - w_k;
#pragma unroll
    for (int i = 0; i < BK / W_DOWN; i++) {
      bool valid = in_w && i * W_DOWN < left_k;
      copy_async(stage + i * W_DOWN * BN, valid ? from + (size_t)i * W_DOWN * pitch : w, valid);
    }
  };
  auto load_x = [&](int step) {
    float *stage = space + step % STAGES * STAGE + x_row * PITCH + x_k;
    const float *from = x_from + step * BK;
    int left_k = input - step * BK - x_k;
    if (input % 4 == 0) {
#pragma unroll
      for (int i = 0; i < BM / X_DOWN; i++) {
        bool valid = 0 < left_k && i * X_DOWN < left_rows;
        copy_async(stage + i * X_DOWN * PITCH, valid ? from + (size_t)i * X_DOWN * input : x, valid);
      }
      return;
    }
    for (int i = 0; i < BM / X_DOWN; i++) { // rows that do not lie at multiples of 16 bytes
      for (int e = 0; e < 4; e++) {
        bool valid = e < left_k && i * X_DOWN < left_rows;
        stage[i * X_DOWN * PITCH + e] = valid ? from[(size_t)i * X_DOWN * input + e] : 0.0f;
      }
    }
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) if (s < steps) load_w(s);
  wait_for_previous();
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) load_x(s);
    commit_copies();
  }
  float sum[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; i++) {
#pragma unroll
    for (int j = 0; j < TN; j++) sum[i][j] = 0;
  }
  bool idle = first + ty >= rows; // none of its rows is there
  for (int step = 0; step < steps; step++) {
    wait_copies<STAGES - 2>();
    __syncthreads();
    if (int next = step + STAGES - 1; next < steps) load_w(next), load_x(next);
    commit_copies();
    if (idle) continue;
    const float *left = space + step % STAGES * STAGE, *right = left + BM * PITCH;
#pragma unroll (TM == 1 ? 16 : 4)
    for (int k = 0; k < BK; k += 2) {
      float2 a[TM];
#pragma unroll
      for (int i = 0; i < TM; i++) a[i] = *(const float2 *)(left + (ty + i * DOWN) * PITCH + k);
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float4 b[TN / 4];
#pragma unroll
        for (int j = 0; j < TN / 4; j++) b[j] = *(const float4 *)(right + (k + e) * BN + (tx + j * ACROSS) * 4);
#pragma unroll
        for (int i = 0; i < TM; i++) {
          float left_of = e ? a[i].y : a[i].x;
#pragma unroll
          for (int j = 0; j < TN / 4; j++) {
            sum[i][4 * j] = __fmaf_rn(left_of, b[j].x, sum[i][4 * j]);
            sum[i][4 * j + 1] = __fmaf_rn(left_of, b[j].y, sum[i][4 * j + 1]);
            sum[i][4 * j + 2] = __fmaf_rn(left_of, b[j].z, sum[i][4 * j + 2]);
            sum[i][4 * j + 3] = __fmaf_rn(left_of, b[j].w, sum[i][4 * j + 3]);
          }
        }
      }
    }
  }
  wait_copies<0>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < TM; i++) {
#pragma unroll
    for (int j = 0; j < TN; j += 4) {
      float *to_row = space + (ty + i * DOWN) * (BN + 8) + (tx + j / 4 * ACROSS) * 4;
      *(float4 *)to_row = float4{sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
    }
  }
  __syncthreads();
  finish<float, BM, BN, THREADS>(y, space, bias, rows, output, to, activation, append);
}

} // namespace
