#pragma once

#include "conditionals.h"
#include "cuda/autoregressive_system.h"

namespace fastgen::cuda {

// v solves v_i = w_i e^s_i + mu_i, or v_i = (w_i - mu_i) e^-s_i where the map divides, mu and s from the network of v.
template <class T, class W = T>
struct AutoregressiveInverseForward : AutoregressiveSystem<T, W> {
  Affine<T> map;
  const T* log_det_in;  // may be null
  int64_t log_det_step;
  T* log_det;  // (rows)

  // Of a feature, where a kernel has a place for them.
  static constexpr int kNumbers = Affine<T>::numbers, kOutputs = static_cast<int>(Affine<T>::outputs());
  // How many features are given.
  static constexpr FASTGEN_HD int known() { return 0; }
};

// The gradients of the noise and of all sums at the solution, from what masked_mlp_forward made of v.
template <class T, class W = T>
struct AutoregressiveInverseBackward {
  using Value = T;
  using Weight = W;
  Network<T, W> network;
  int64_t units;
  cpu::Strided<T> grad_v;
  const T* grad_log_det;  // may be null, as grad_v.data: zero
  int64_t grad_log_det_step;
  cpu::Strided<T> w;
  const T* v;  // (rows, features)
  const T* y;  // (rows, outputs): what the network puts out at v
  int64_t rows;
  Affine<T> map;
  T* grad_w;  // (rows, features)
};

}  // namespace fastgen::cuda
