#pragma once

#include "cuda/any_conditional.h"
#include "cuda/autoregressive_system.h"

namespace fastgen::cuda {

// v holds samples of an autoregressive density with these conditionals.
template <class T>
struct AutoregressiveSample : AutoregressiveSystem<T> {
  AnyConditional<T> map;
  int32_t given_features;

  // At most two random numbers of a feature; its outputs, of which there may be any number, lie in the state.
  static constexpr int kNumbers = 2, kOutputs = 0;
  FASTGEN_HD int known() const { return given_features; }
};

// For the current device.
Tiling tiling_of(const AutoregressiveSample<float>& a);
Tiling tiling_of(const AutoregressiveSample<double>& a);

// On a stream (a cudaStream_t) of the current device; at least one row. Throws std::runtime_error where a launch fails.
void run(const AutoregressiveSample<float>& a, const Tiling& tiling, float* scratch, void* stream);
void run(const AutoregressiveSample<double>& a, const Tiling& tiling, double* scratch, void* stream);

}  // namespace fastgen::cuda
