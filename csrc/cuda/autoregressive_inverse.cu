#include "cuda/autoregressive_inverse.h"

#include <cuda_runtime.h>

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "cuda/autoregressive_tiles.h"

namespace fastgen::cuda {
namespace {

template <int R, bool kInShared, class Call>
__global__ void __launch_bounds__(kThreads, R == 8 && sizeof(typename Call::Value) == 4 ? 2 : 1)
    autoregressive_tiles(const __grid_constant__ Call a, typename Call::Value* scratch) {
  extern __shared__ __align__(kAlignment) unsigned char shared[];
  Block block;
  solve_tiles<R, kInShared>(block, a, shared, scratch, blockIdx.x, gridDim.x);
}

void expect_success(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("autoregressive_inverse: ") + cudaGetErrorString(error));
}

int attribute(cudaDeviceAttr name) {
  int device = 0, value = 0;
  expect_success(cudaGetDevice(&device));
  expect_success(cudaDeviceGetAttribute(&value, name, device));
  return value;
}

// Calls f with the constant of a tile's rows, at most those of T.
template <class T>
constexpr int kMostRows = sizeof(T) == 4 ? 32 : 16;
template <class T, class F>
auto dispatch_rows(int rows, const F& f) {
  if constexpr (kMostRows<T> == 32)
    if (rows == 32) return f(std::integral_constant<int, 32>{});
  if (rows == 16) return f(std::integral_constant<int, 16>{});
  return f(std::integral_constant<int, 8>{});
}

// The most rows a tile that leave no multiprocessor idle, in shared memory where any tile's state fits.
template <class Call>
Tiling choose(const Call& a) {
  using T = typename Call::Value;
  const int64_t processors = attribute(cudaDevAttrMultiProcessorCount);
  const int64_t room = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  for (const bool in_shared : {true, false}) {
    Tiling best{};
    for (int rows = kMostRows<T>; rows >= 8; rows /= 2) {
      if (dispatch_rows<T>(rows, [&](auto r) { return shared_bytes<Block, r>(a, in_shared); }) > room) continue;
      const int64_t tiles = (a.rows + rows - 1) / rows, blocks = in_shared || tiles < processors ? tiles : processors;
      best = {rows, in_shared, blocks, in_shared ? 0 : blocks * rows * a.units};
      if (4 * tiles >= 3 * processors) break;
    }
    if (best.rows) return best;
  }
  throw std::runtime_error("autoregressive_inverse: expected a device with more shared memory for a block");
}

template <class Call>
void launch(const Call& a, const Tiling& tiling, typename Call::Value* scratch, void* stream) {
  dispatch_rows<typename Call::Value>(tiling.rows, [&](auto r) {
    const auto kernel = tiling.in_shared ? autoregressive_tiles<r, true, Call> : autoregressive_tiles<r, false, Call>;
    const int bytes = static_cast<int>(shared_bytes<Block, r>(a, tiling.in_shared));
    expect_success(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<static_cast<unsigned>(tiling.blocks), kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(a, scratch);
    expect_success(cudaGetLastError());
  });
}

}  // namespace

Tiling tiling_of(const AutoregressiveInverseForward<float>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseForward<double>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseBackward<float>& a) { return choose(a); }
Tiling tiling_of(const AutoregressiveInverseBackward<double>& a) { return choose(a); }

void run(const AutoregressiveInverseForward<float>& a, const Tiling& tiling, float* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseForward<double>& a, const Tiling& tiling, double* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseBackward<float>& a, const Tiling& tiling, float* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}
void run(const AutoregressiveInverseBackward<double>& a, const Tiling& tiling, double* scratch, void* stream) {
  launch(a, tiling, scratch, stream);
}

}  // namespace fastgen::cuda
