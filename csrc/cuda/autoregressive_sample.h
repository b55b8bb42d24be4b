#pragma once

#include "cuda/any_conditional.h"
#include "cuda/autoregressive_system.h"

namespace fastgen::cuda {

// v holds samples of an autoregressive density with these conditionals.
template <class T, class W = T>
struct AutoregressiveSample : AutoregressiveSystem<T, W> {
  AnyConditional<T> map;
  int32_t given_features;

  // At most two random numbers of a feature; its outputs, of which there may be any number, lie in the state.
  static constexpr int kNumbers = 2, kOutputs = 0;
  FASTGEN_HD int known() const { return given_features; }
};

}  // namespace fastgen::cuda
