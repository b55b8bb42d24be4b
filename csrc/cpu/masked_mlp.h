#pragma once

#include <cstdint>

#include "activation.h"
#include "cpu/staircase.h"
#include "cpu/variant.h"

namespace fastgen::cpu {

template <class T>
struct NetworkLayer {
  const T* weight;
  const T* bias;  // may be null
  Staircase stair;
  Activation activation;
  int residual;    // the earlier layer whose sums are added; -1: none
  T* grad_weight;  // may be null: not wanted
  T* grad_bias;
};

template <class T>
struct MaskedNetwork {
  const NetworkLayer<T>* layers;
  int count;
  const NetworkLayer<T>* direct;  // from the inputs to the last layer's sums; may be null
};

template <class T>
struct MaskedMlpForward {
  MaskedNetwork<T> network;
  const T* x;
  int64_t ldx;
  const T* context_terms;  // may be null
  int64_t ld_context;
  int64_t rows;
  T* y;
  T* saved;  // per hidden layer (rows, width): its output, or its sums where act' is taken from those; null: not wanted
};

template <class T>
struct MaskedMlpBackward {
  MaskedNetwork<T> network;
  const T* grad;
  int64_t ld_grad;
  const T* x;
  int64_t ldx;
  const T* saved;
  int64_t rows;
  T* grad_x;  // each may be null: not wanted
  T* grad_context;
  bool add_to_grad_x = false;  // to what it holds
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(masked_mlp_forward, MaskedMlpForward)
FASTGEN_DECLARE_KERNEL(masked_mlp_backward, MaskedMlpBackward)
