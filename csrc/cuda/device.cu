#include "cuda/device.h"

#include <cuda_runtime.h>

#include <stdexcept>

namespace fastgen::cuda {

int device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
  cudaGetLastError();  // no driver is no error here, and must not surface in a later call
  return 0;
}

Device device(int index) {
  const int n = device_count();
  if (index < 0 || index >= n)
    throw std::out_of_range("index: expected a CUDA device below " + std::to_string(n) + ", found " + std::to_string(index));
  cudaDeviceProp p{};
  if (const cudaError_t e = cudaGetDeviceProperties(&p, index); e != cudaSuccess)
    throw std::runtime_error(cudaGetErrorString(e));
  Device d;
  d.name = p.name;
  d.major = p.major;
  d.minor = p.minor;
  d.multiprocessors = p.multiProcessorCount;
  d.shared_memory_per_block = static_cast<int64_t>(p.sharedMemPerBlockOptin);
  d.l2_bytes = p.l2CacheSize;
  d.memory_bytes = static_cast<int64_t>(p.totalGlobalMem);
  return d;
}

}  // namespace fastgen::cuda
