// Activations over a run of values: the switch stands outside the loop.
#pragma once

#include "activation.h"
#include "cpu/simd.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
FASTGEN_INLINE void activate_row(Activation activation, T* x, int64_t n) {
  if (activation == Activation::identity) return;
  dispatch_activation(activation, [=](auto f) {
    for (int64_t i = 0; i < n; ++i) x[i] = f.value(x[i]);
  });
}

// g *= act'(saved), `saved` being the activation's output, or the sum before it where act' is taken from that.
template <class T>
FASTGEN_INLINE void multiply_by_derivative(Activation activation, const T* saved, T* g, int64_t n) {
  if (activation == Activation::identity) return;
  dispatch_activation(activation, [=](auto f) {
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (decltype(f)::from_output)
        g[i] *= f.derivative_from_output(saved[i]);
      else
        g[i] *= f.derivative(saved[i]);
    }
  });
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
