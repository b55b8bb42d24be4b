// The activations and scale maps, one function each on a device, where a switch costs less than copies of the code around it.
#pragma once

#include "activation.h"
#include "cuda/block.h"
#include "scale_map.h"

namespace fastgen::cuda {

template <class T>
FASTGEN_DEVICE T activated(Activation activation, T x) {
  return dispatch_activation(activation, [&](auto act) { return decltype(act)::template value<T>(x); });
}

// The derivative, from what is saved for it: the output, or the sum before it.
template <class T>
FASTGEN_DEVICE T derivative(Activation activation, T saved) {
  return dispatch_activation(activation, [&](auto act) {
    using A = decltype(act);
    if constexpr (A::from_output)
      return A::template derivative_from_output<T>(saved);
    else
      return A::template derivative<T>(saved);
  });
}

template <class T>
FASTGEN_DEVICE LogScale<T> log_scale(const ScaleMap& map, T raw) {
  LogScale<T> scale{};
  dispatch_scale_map<T>(map, [&](auto function) { scale = function(raw); });
  return scale;
}

}  // namespace fastgen::cuda
