#pragma once

#include "cpu/masked_mlp.h"
#include "cpu/strided.h"
#include "scale_map.h"

namespace fastgen::cpu {

// z_i = (x_i - mu_i) e^-s_i, or x_i e^s_i + mu_i where `divide`, mu and s from the network of x.
template <class T>
struct MaskedAutoregressiveForward {
  MaskedMlpForward<T> pass;  // two outputs per feature: shift, and log-scale before its map; `y` is wanted with `saved` only
  const T* log_det_in;       // may be null
  int64_t log_det_step;
  bool divide;
  ScaleMap map;
  T* z;      // null: the log-density is wanted, z being standard normal
  T* total;  // log_det, or that log-density
};

template <class T>
struct MaskedAutoregressiveBackward {
  MaskedMlpBackward<T> pass;  // `grad` is made here
  const T* y;                 // (rows, outputs)
  Strided<T> grad_z;          // null: nothing flows from z
  const T* grad_total;        // null: nothing flows from log_det
  int64_t grad_total_step;
  bool divide;
  bool log_prob;  // whether `total` was the log-density
  ScaleMap map;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(masked_autoregressive_forward, MaskedAutoregressiveForward)
FASTGEN_DECLARE_KERNEL(masked_autoregressive_backward, MaskedAutoregressiveBackward)
