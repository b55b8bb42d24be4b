// The activations a layer can apply, and their derivatives: as types, so that a kernel's loop contains one formula only.
// The first six derive from their output, the others from the sum before them. Internal linkage, as in elementary.h.
#pragma once

#include <string.h>

#include "elementary.h"

namespace fastgen {

enum class Activation { identity, relu, leaky_relu, elu, tanh, sigmoid, softplus, silu, gelu };

namespace {

struct Identity {
  static constexpr bool from_output = true;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return x;
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T) {
    return T(1);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T) {
    return T(1);
  }
};

struct Relu {
  static constexpr bool from_output = true;
  // A NaN compares false and passes.
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return x <= T(0) ? T(0) : x;
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return x <= T(0) ? T(0) : T(1);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T y) {
    return derivative(y);
  }
};

struct LeakyRelu {
  static constexpr bool from_output = true;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return x * derivative(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return x > T(0) ? T(1) : T(0.01);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T y) {
    return derivative(y);
  }
};

struct Elu {
  static constexpr bool from_output = true;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    const T e = math::expm1(x);
    return x > T(0) ? x : e;
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    const T e = math::exp(x);
    return x > T(0) ? T(1) : e;
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T y) {
    return y > T(0) ? T(1) : y + T(1);
  }
};

struct Tanh {
  static constexpr bool from_output = true;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return math::tanh(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return derivative_from_output(value(x));
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T y) {
    return T(1) - y * y;
  }
};

struct Sigmoid {
  static constexpr bool from_output = true;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return math::sigmoid(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return derivative_from_output(value(x));
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative_from_output(T y) {
    return y * (T(1) - y);
  }
};

struct Softplus {
  static constexpr bool from_output = false;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return math::softplus(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return math::sigmoid(x);
  }
};

struct Silu {
  static constexpr bool from_output = false;
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return x * math::sigmoid(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    const T s = math::sigmoid(x);
    return s * (T(1) + x * (T(1) - s));
  }
};

struct Gelu {
  static constexpr bool from_output = false;
  // The standard normal's distribution function.
  template <class T>
  static FASTGEN_HD_INLINE T cdf(T x) {
    return T(0.5) * (T(1) + math::erf(x * T(0.70710678118654752)));
  }
  template <class T>
  static FASTGEN_HD_INLINE T value(T x) {
    return x * cdf(x);
  }
  template <class T>
  static FASTGEN_HD_INLINE T derivative(T x) {
    return cdf(x) + x * (T(0.39894228040143268) * math::exp(T(-0.5) * x * x));
  }
};

// Calls f(Relu{}) and the like: a loop inside f is compiled once per activation.
template <class F>
FASTGEN_HD_INLINE auto dispatch_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::relu:
      return f(Relu{});
    case Activation::leaky_relu:
      return f(LeakyRelu{});
    case Activation::elu:
      return f(Elu{});
    case Activation::tanh:
      return f(Tanh{});
    case Activation::sigmoid:
      return f(Sigmoid{});
    case Activation::softplus:
      return f(Softplus{});
    case Activation::silu:
      return f(Silu{});
    case Activation::gelu:
      return f(Gelu{});
    default:
      return f(Identity{});
  }
}

// Whether the derivative is taken from the output; otherwise a backward pass needs the sum before the activation.
inline bool derives_from_output(Activation activation) { return activation <= Activation::sigmoid; }

// False for a name that is not in the list.
inline bool parse_activation(const char* name, Activation& out) {
  const char* const names[] = {"identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "silu", "gelu"};
  for (int i = 0; i < int(sizeof(names) / sizeof(names[0])); ++i)
    if (!strcmp(name, names[i])) return out = static_cast<Activation>(i), true;
  return false;
}

}  // namespace
}  // namespace fastgen
