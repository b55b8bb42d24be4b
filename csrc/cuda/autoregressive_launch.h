// How a call runs on a device: the kernel, the tiles it takes of rows, and where their state lies. For nvcc alone.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/autoregressive_tiles.h"

namespace fastgen::cuda {
namespace {

template <int R, bool kInShared, class Call>
__global__ void __launch_bounds__(kThreads, R == 8 && kInShared && sizeof(typename Call::Value) == 4 ? 2 : 1)
    autoregressive_tiles(const __grid_constant__ Call a, typename Call::Value* scratch) {
  extern __shared__ __align__(kAlignment) unsigned char shared[];
  Block block;
  solve_tiles<R, kInShared>(block, a, shared, scratch, blockIdx.x, gridDim.x);
}

inline void expect_success(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("fastgen: ") + cudaGetErrorString(error));
}

inline int attribute(cudaDeviceAttr name) {
  int device = 0, value = 0;
  expect_success(cudaGetDevice(&device));
  expect_success(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

// Whether tiles of so many rows are compiled: float64 and states in global memory are rare.
template <class T>
constexpr bool is_made(int rows, bool in_shared) {
  return rows == 8 || (sizeof(T) == 4 && (rows == 32 || in_shared));
}

// Calls f with the constants of a tile; returns its default where there is no such tile.
template <class Result, class T, class F>
Result dispatch_tile(int rows, bool in_shared, const F& f) {
  const auto at = [&](auto r) -> Result {
    using Shared = std::true_type;
    using Global = std::false_type;
    if constexpr (is_made<T>(r, true))
      if (in_shared) return f(r, Shared{});
    if constexpr (is_made<T>(r, false))
      if (!in_shared) return f(r, Global{});
    return Result();
  };
  if (rows == 32) return at(std::integral_constant<int, 32>{});
  if (rows == 16) return at(std::integral_constant<int, 16>{});
  return at(std::integral_constant<int, 8>{});
}

}  // namespace

// The most rows a tile that leave no multiprocessor idle, in shared memory where any tile's state fits.
template <class Call>
Tiling tiling_of(const Call& a) {
  using T = typename Call::Value;
  const int64_t processors = attribute(cudaDevAttrMultiProcessorCount);
  const int64_t room = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  for (const bool in_shared : {true, false}) {
    Tiling best{};
    for (const int rows : {32, 16, 8}) {
      if (!is_made<T>(rows, in_shared)) continue;
      const auto bytes =
          dispatch_tile<int64_t, T>(rows, in_shared, [&](auto r, auto s) { return shared_bytes<Block, r>(a, s); });
      if (bytes > room) continue;
      const int64_t tiles = (a.rows + rows - 1) / rows, blocks = in_shared || tiles < processors ? tiles : processors;
      best = {rows, in_shared, blocks, in_shared ? 0 : blocks * rows * a.units};
      if (4 * tiles >= 3 * processors) break;
    }
    if (best.rows) return best;
  }
  throw std::runtime_error("fastgen: expected a device with more shared memory for a block");
}

template <class Call>
void run(const Call& a, const Tiling& tiling, typename Call::Value* scratch, void* stream) {
  dispatch_tile<void, typename Call::Value>(tiling.rows, tiling.in_shared, [&](auto r, auto s) {
    const auto kernel = autoregressive_tiles<r, s, Call>;
    const int bytes = static_cast<int>(shared_bytes<Block, r>(a, s));
    expect_success(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<static_cast<unsigned>(tiling.blocks), kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(a, scratch);
    expect_success(cudaGetLastError());
  });
}

}  // namespace fastgen::cuda
