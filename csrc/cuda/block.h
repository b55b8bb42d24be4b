// The threads of a block, as code that runs on a device sees them. That code takes the type of its block as a parameter, so
// that a test can run the same source on the CPU (tests/emulation).
#pragma once

#include "elementary.h"

#ifdef __CUDACC__
#define FASTGEN_DEVICE __device__ __forceinline__
#define FASTGEN_UNROLL _Pragma("unroll")
#define FASTGEN_ONE_BY_ONE _Pragma("unroll 1")
#else
#define FASTGEN_DEVICE inline
#define FASTGEN_UNROLL
#define FASTGEN_ONE_BY_ONE
#endif

namespace fastgen::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// What no kernel writes.
template <class T>
FASTGEN_DEVICE T read(const T* p) {
#ifdef __CUDA_ARCH__
  return __ldg(p);
#else
  return *p;
#endif
}

#ifdef __CUDACC__
struct Block {
  __device__ int thread() const { return threadIdx.x; }
  __device__ void sync() const { __syncthreads(); }
  __device__ void sync_warp() const { __syncwarp(); }
  // sums += rows x weights, of 16 rows, 8 units and 8 steps in tf32: the fragments of mma.m16n8k8. All lanes of the warp call
  // it.
  __device__ __forceinline__ void multiply_add(float* sums, const float (&rows)[4], const float (&weights)[2]) const {
    // Volatile, so that it stays where the whole warp is.
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(__float_as_uint(rows[0])), "r"(__float_as_uint(rows[1])), "r"(__float_as_uint(rows[2])),
          "r"(__float_as_uint(rows[3])), "r"(__float_as_uint(weights[0])), "r"(__float_as_uint(weights[1])));
  }
  // The sum over each group of `lanes` neighbours, a power of two, for every one of them. All lanes of the warp call it.
  template <class T>
  __device__ __forceinline__ T sum(T value, int lanes) const {
    for (int other = lanes / 2; other; other /= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
    return value;
  }
};
#endif

}  // namespace fastgen::cuda
