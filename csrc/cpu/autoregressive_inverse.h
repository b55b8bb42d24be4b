#pragma once

#include "cpu/autoregressive_system.h"
#include "cpu/variant.h"
#include "scale_map.h"

namespace fastgen::cpu {

// v solves v_i = w_i e^s_i + mu_i, or v_i = (w_i - mu_i) e^-s_i where `divide`, mu and s from the network of v.
template <class T>
struct AutoregressiveInverseForward {
  AutoregressiveSystem<T> system;  // two outputs per feature: shift, and log-scale before its map; the noise is w
  bool divide;
  ScaleMap map;
};

// The gradients at the solution, from what masked_mlp_forward made of v.
template <class T>
struct AutoregressiveInverseBackward {
  MaskedNetwork<T> network;
  Strided<T> grad_v;
  const T* grad_log_det;  // each may be null: zero
  int64_t grad_log_det_step;
  Strided<T> w;
  const T* v;      // (rows, features)
  const T* y;      // (rows, outputs): what the network puts out at v
  const T* saved;  // as masked_mlp_forward saves it
  int64_t rows;
  bool divide;
  ScaleMap map;
  T* grad_w;  // each may be null: not wanted
  T* grad_context;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(autoregressive_inverse_forward, AutoregressiveInverseForward)
FASTGEN_DECLARE_KERNEL(autoregressive_inverse_backward, AutoregressiveInverseBackward)
