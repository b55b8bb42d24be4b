// The scale maps of fastgen.reference.ScaleMap: from raw network output a to log-scale s, and ds/da.
// Each is a type, so that a kernel's loop contains one formula only. Internal linkage, as in elementary.h.
#pragma once

#include "elementary.h"

namespace fastgen {

// In the order of fastgen.reference.scale_map.KINDS.
enum class ScaleKind { identity, softplus, sigmoid, soft_clip, tanh, clamp, clamp_straight };
constexpr int kScaleKinds = 7;

// What ScaleMap.code holds: the kind and its up to two numbers (eps, c, or lo and hi).
struct ScaleMap {
  ScaleKind kind;
  double first, second;
};

namespace {

template <class T>
struct LogScale {
  T value, derivative;
};

template <class T>
struct IdentityScale {
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const { return {a, T(1)}; }
};

template <class T>
struct LogSoftplus {
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    // Below -18, log(softplus(a)) is a - e^a / 2 to the last digit of float64, while softplus itself underflows.
    const bool small = a < T(-18);
    const T t = math::exp(-math::abs(a));
    const T softplus = (a > T(0) ? a : T(0)) + math::log1p(t);
    const T sigmoid = (a < T(0) ? t : T(1)) / (T(1) + t);
    const T half = T(0.5) * t;
    return {small ? a - half : math::log(softplus), small ? T(1) - half : sigmoid / softplus};
  }
};

template <class T>
struct LogSoftplusPlus {
  T eps;
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    const T scale = math::softplus(a) + eps;
    return {math::log(scale), math::sigmoid(a) / scale};
  }
};

template <class T>
struct LogSigmoid {
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const { return {math::log_sigmoid(a + T(2)), math::sigmoid(T(-2) - a)}; }
};

template <class T>
struct LogSigmoidPlus {
  T eps;
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    const T sigmoid = math::sigmoid(a + T(2)), scale = sigmoid + eps;
    return {math::log(scale), sigmoid * math::sigmoid(T(-2) - a) / scale};
  }
};

template <class T>
struct SoftClip {
  T c;
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    const T d = T(1) + math::abs(a / c);
    return {a / d, T(1) / (d * d)};
  }
};

template <class T>
struct TanhScale {
  T c;
  // sech^2 = 4 e / (1 + e)^2 with e = e^-2|a / c|: 1 - tanh^2 cancels.
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    const T u = a / c, e = math::exp(T(-2) * math::abs(u)), d = T(1) + e;
    return {c * math::tanh(u), T(4) * e / (d * d)};
  }
};

template <class T>
struct ClampScale {
  T lo, hi;
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const {
    const T inside = a <= hi ? T(1) : T(0);
    return {math::clamp(a, lo, hi), a >= lo ? inside : T(0)};
  }
};

template <class T>
struct ClampStraight {
  T lo, hi;
  FASTGEN_HD_INLINE LogScale<T> operator()(T a) const { return {math::clamp(a, lo, hi), T(1)}; }
};

// Calls f(map) with the type that computes `map` in T: a loop inside f is compiled once per map.
template <class T, class F>
FASTGEN_HD_INLINE void dispatch_scale_map(const ScaleMap& map, F&& f) {
  const T first = T(map.first), second = T(map.second);
  switch (map.kind) {
    case ScaleKind::softplus:
      return first == T(0) ? f(LogSoftplus<T>{}) : f(LogSoftplusPlus<T>{first});
    case ScaleKind::sigmoid:
      return first == T(0) ? f(LogSigmoid<T>{}) : f(LogSigmoidPlus<T>{first});
    case ScaleKind::soft_clip:
      return f(SoftClip<T>{first});
    case ScaleKind::tanh:
      return f(TanhScale<T>{first});
    case ScaleKind::clamp:
      return f(ClampScale<T>{first, second});
    case ScaleKind::clamp_straight:
      return f(ClampStraight<T>{first, second});
    default:
      return f(IdentityScale<T>{});
  }
}

}  // namespace
}  // namespace fastgen
