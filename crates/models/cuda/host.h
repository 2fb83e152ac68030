// Plays a GPU on the CPU, so that the kernels are tested where there is none: the threads of a block are fibers of one
// thread, which take turns at barriers; blocks run one after the other. `reversed` turns the order of the turns round:
// a barrier that is missing then shows in the result. What is here is what kernels.cu uses.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <csetjmp>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static // one block at a time
#define CUDART_INF_F INFINITY

struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct uint3 { unsigned x, y, z; };

inline float bits_to_float(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline uint32_t float_to_bits(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }

struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return bits_to_float((uint32_t)x.bits << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { // to the nearest, ties to even
  uint32_t bits = float_to_bits(x);
  return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
struct __half { uint16_t bits; };
inline float __half2float(__half x) {
  int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  float size = exponent == 31  ? (mantissa ? NAN : INFINITY)
               : exponent == 0 ? std::ldexp((float)mantissa, -24)
                               : std::ldexp((float)(mantissa + 1024), exponent - 25);
  return x.bits & 0x8000 ? -size : size;
}
inline __half __float2half_rn(float x) {
  uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (std::isnan(x)) return {0x7fff};
  if (x >= 65520.0f) return {(uint16_t)(sign | 0x7c00)};
  if (x < 0x1p-14f) return {(uint16_t)(sign | (int)std::nearbyint(std::ldexp(x, 24)))};
  int exponent;
  float fraction = std::frexp(x, &exponent); // x = fraction * 2^exponent, 1/2 <= fraction < 1
  int mantissa = (int)std::nearbyint(fraction * 2048); // 1024 ..= 2048; 2048 carries into the exponent
  return {(uint16_t)(sign | (((exponent + 13) << 10) + mantissa))};
}
struct __half2 { __half x, y; };
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

// Compiled without contraction, so that these are what they say.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline int min(int a, int b) { return a < b ? a : b; }
using std::isnan;

namespace host {

constexpr int MOST = 1024, STACK = 1 << 17;

struct Barrier { int arrived = 0, turn = 0; };
struct Copy { void *to; const void *from; };

inline struct State {
  ucontext_t contexts[MOST];
  jmp_buf main, fibers[MOST]; // swapcontext makes a system call; these do not
  std::vector<char> stacks;
  uint3 thread, block, blocks, threads;
  int current, alive_in_block, alive[MOST / 32];
  bool started[MOST], ended[MOST], reversed = false;
  // A thread's copies that have not arrived: of groups, the open one last.
  std::vector<std::vector<Copy>> copies[MOST];
  Barrier all, warps[MOST / 32];
  unsigned char slots[2][MOST][32];
  int side[MOST];
  int any;
  float *dynamic;
  std::function<void()> kernel;
} gpu;

inline void yield() {
  int me = gpu.current;
  if (!_setjmp(gpu.fibers[me])) _longjmp(gpu.main, 1);
  gpu.thread = {(unsigned)me, 0, 0};
}

// Waits until all of `alive` have come.
inline void wait(Barrier &barrier, const int &alive) {
  int turn = barrier.turn;
  barrier.arrived++;
  while (turn == barrier.turn) {
    if (barrier.arrived >= alive) barrier.arrived = 0, barrier.turn++;
    else yield();
  }
}
inline int warp() { return gpu.current / 32; }
inline void wait_warp() { wait(gpu.warps[warp()], gpu.alive[warp()]); }

// Every lane's value, by lane.
template <typename V> std::array<V, 32> exchange(V mine) {
  static_assert(sizeof(V) <= 32);
  // Two sides in turn: nobody overwrites one before all have read it, for they wait at the other.
  auto &slots = gpu.slots[gpu.side[gpu.current] ^= 1];
  std::memcpy(slots[gpu.current], &mine, sizeof(V));
  wait_warp();
  std::array<V, 32> values;
  for (int lane = 0; lane < 32; lane++) std::memcpy(&values[lane], slots[warp() * 32 + lane], sizeof(V));
  return values;
}

inline void fiber() {
  gpu.thread = {(unsigned)gpu.current, 0, 0};
  gpu.kernel();
  gpu.ended[gpu.current] = true;
  gpu.alive_in_block--, gpu.alive[warp()]--;
  _longjmp(gpu.main, 1);
}

// Runs a fiber until it waits or ends.
inline void resume() {
  int me = gpu.current;
  if (_setjmp(gpu.main)) return;
  if (gpu.started[me]) _longjmp(gpu.fibers[me], 1);
  gpu.started[me] = true;
  setcontext(&gpu.contexts[me]);
}

inline void launch(uint3 grid, int threads, size_t shared, std::function<void()> kernel) {
  std::vector<float4> dynamic(shared / 16 + 1); // aligned
  gpu.stacks.resize((size_t)MOST * STACK);
  gpu.dynamic = &dynamic.data()->x;
  gpu.kernel = std::move(kernel);
  gpu.blocks = grid, gpu.threads = {(unsigned)threads, 1, 1};
  for (unsigned z = 0; z < grid.z; z++) for (unsigned y = 0; y < grid.y; y++) for (unsigned x = 0; x < grid.x; x++) {
    gpu.block = {x, y, z};
    gpu.alive_in_block = threads, gpu.any = 0;
    gpu.all = {};
    for (float4 &value : dynamic) value = {NAN, NAN, NAN, NAN};
    for (int warp = 0; warp < threads / 32; warp++) gpu.alive[warp] = 32, gpu.warps[warp] = {};
    for (int i = 0; i < threads; i++) {
      gpu.ended[i] = gpu.started[i] = false;
      gpu.copies[i] = {{}};
      getcontext(&gpu.contexts[i]);
      gpu.contexts[i].uc_stack.ss_sp = gpu.stacks.data() + (size_t)i * STACK;
      gpu.contexts[i].uc_stack.ss_size = STACK;
      gpu.contexts[i].uc_link = nullptr;
      makecontext(&gpu.contexts[i], fiber, 0);
    }
    while (gpu.alive_in_block > 0) {
      for (int i = 0; i < threads; i++) {
        gpu.current = gpu.reversed ? threads - 1 - i : i;
        if (!gpu.ended[gpu.current]) resume();
      }
    }
  }
}

} // namespace host

#define threadIdx host::gpu.thread
#define blockIdx host::gpu.block
#define gridDim host::gpu.blocks
#define blockDim host::gpu.threads

inline void __syncthreads() { host::wait(host::gpu.all, host::gpu.alive_in_block); }
inline int __syncthreads_or(int value) {
  host::gpu.any |= value;
  __syncthreads();
  int any = host::gpu.any;
  __syncthreads();
  host::gpu.any = 0;
  return any;
}
template <typename V> V __shfl_xor_sync(unsigned, V value, int offset) {
  return host::exchange(value)[host::gpu.current % 32 ^ offset];
}
template <typename V> V __shfl_sync(unsigned, V value, int lane) { return host::exchange(value)[lane]; }

// mma.sync.m16n8k16: c (16, 8) += a (16, 16) b (16, 8), of the fragments that PTX's manual draws.
template <typename T, typename F>
void mma_of(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, F to_float) {
  struct Parts { unsigned a[4], b[2]; };
  auto lanes = host::exchange(Parts{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  auto half = [&](unsigned pair, int which) { return to_float(T{(uint16_t)(pair >> 16 * which)}); };
  int g = host::gpu.current % 32 / 4, t = host::gpu.current % 4;
  for (int e = 0; e < 4; e++) {
    int row = g + (e < 2 ? 0 : 8), column = 2 * t + e % 2;
    double sum = 0;
    for (int k = 0; k < 16; k++) {
      unsigned left = lanes[row % 8 * 4 + k % 8 / 2].a[(k < 8 ? 0 : 2) + row / 8];
      unsigned right = lanes[column * 4 + k % 8 / 2].b[k / 8];
      sum += (double)half(left, k % 2) * half(right, k % 2);
    }
    c[e] = (float)(c[e] + sum);
  }
}

// ldmatrix.x4.trans: of four (8, 8) matrices, whose rows the lanes name in order, transposed.
inline void load_transposed(unsigned (&out)[4], const void *row) {
  auto rows = host::exchange(row);
  int g = host::gpu.current % 32 / 4, t = host::gpu.current % 4;
  for (int i = 0; i < 4; i++) {
    unsigned low = ((const uint16_t *)rows[8 * i + 2 * t])[g], high = ((const uint16_t *)rows[8 * i + 2 * t + 1])[g];
    out[i] = low | high << 16;
  }
}

// ldmatrix.x4: as they are.
inline void load_matrices(unsigned (&out)[4], const void *row) {
  auto rows = host::exchange(row);
  int g = host::gpu.current % 32 / 4, t = host::gpu.current % 4;
  for (int i = 0; i < 4; i++) std::memcpy(&out[i], (const uint16_t *)rows[8 * i + g] + 2 * t, 4);
}

// cp.async: nothing arrives before it is waited for; where the turns are reversed, everything at once.
inline void copy(void *to, const void *from) { from ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); }
inline void copy_async(void *to, const void *from, bool valid) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) std::abort();
  if (host::gpu.reversed) copy(to, valid ? from : nullptr);
  else host::gpu.copies[host::gpu.current].back().push_back({to, valid ? from : nullptr});
}
inline void commit_copies() { host::gpu.copies[host::gpu.current].push_back({}); }
template <int N> void wait_copies() {
  auto &groups = host::gpu.copies[host::gpu.current];
  while ((int)groups.size() > N + 1) { // the last one is open
    for (auto [to, from] : groups[0]) copy(to, from);
    groups.erase(groups.begin());
  }
}

// wgmma: d (64, N) += a (64, 16) b (N, 16)', of rows of 64 swizzled by 128 bytes; at once.
inline void publish_shared() {}
inline void begin_wgmma() {}
inline void commit_wgmma() {}
template <int N> void wait_wgmma() {}
template <typename T, int N> void wgmma_step(float (&d)[N], const T *a, const T *b, int k) {
  auto at = [&](const T *rows, int row, int k) {
    T value = rows[row * 64 + ((k / 8) ^ (row & 7)) * 8 + k % 8];
    if constexpr (std::is_same_v<T, __half>) return __half2float(value);
    else return __bfloat162float(value);
  };
  int g = host::gpu.current % 32 / 4, t = host::gpu.current % 4, warp = host::gpu.current / 32 % 4;
  for (int i = 0; i < N; i++) {
    int row = 16 * warp + g + (i % 4 < 2 ? 0 : 8), column = i / 4 * 8 + 2 * t + i % 2;
    double sum = 0;
    for (int e = k; e < k + 16; e++) sum += (double)at(a, row, e) * at(b, column, e);
    d[i] = (float)(d[i] + sum);
  }
}
