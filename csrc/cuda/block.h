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
  // The sum over each group of `lanes` neighbours, a power of two, for every one of them. All lanes of the warp call it.
  template <class T>
  __device__ __forceinline__ T sum(T value, int lanes) const {
    for (int other = lanes / 2; other; other /= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
    return value;
  }
};
#endif

}  // namespace fastgen::cuda
