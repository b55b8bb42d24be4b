// The univariate maps: how one feature is made of random numbers and of what a network puts out for it. Each is a type, so that
// a kernel contains one formula only. Internal linkage, as in elementary.h.
//
// A map works on N rows side by side: its k-th output, or random number, of row r lies at [k * step + r]. It may overwrite the
// outputs. It never loops for ever nor leaves its outputs, whatever they hold.
#pragma once

#include <cstdint>

#include "scale_map.h"

namespace fastgen {

// In the order of fastgen.reference.conditional_sampler.KINDS.
enum class ConditionalKind { bernoulli, categorical, gaussian, mixture };
constexpr int kConditionalKinds = 4;

// What ConditionalSampler.code holds: the kind, how many categories or components, and the scale map.
struct Conditional {
  ConditionalKind kind;
  int64_t size;
  ScaleMap map;
};

namespace {

// value = noise e^s + shift, or its inverse (noise - shift) e^-s where `divide`; the outputs are shift and raw log-scale.
template <class T>
struct Affine {
  static constexpr int numbers = 1;
  static constexpr bool has_log_derivative = true, one_hot = false;
  static constexpr FASTGEN_HD int64_t outputs() { return 2; }
  static constexpr FASTGEN_HD int64_t columns() { return 1; }
  ScaleMap map;
  bool divide;

  template <int N>
  FASTGEN_HD_INLINE void apply(T* outputs, const T* noise, int64_t step, T* value, T* log_derivative) const {
    const T *const shift = outputs, *const raw = outputs + step;
    T s[N];
    dispatch_scale_map<T>(map, [&](auto scale) {
      for (int r = 0; r < N; ++r) s[r] = scale(raw[r]).value;
    });
    if (divide)
      for (int r = 0; r < N; ++r) value[r] = (noise[r] - shift[r]) * math::exp(-s[r]);
    else
      for (int r = 0; r < N; ++r) value[r] = noise[r] * math::exp(s[r]) + shift[r];
    for (int r = 0; r < N; ++r) log_derivative[r] = divide ? -s[r] : s[r];
  }
};

// 1 with probability sigmoid(output), else 0; of a NaN 0.
template <class T>
struct BernoulliDraw {
  static constexpr int numbers = 1;
  static constexpr bool has_log_derivative = false, one_hot = false;
  static constexpr FASTGEN_HD int64_t outputs() { return 1; }
  static constexpr FASTGEN_HD int64_t columns() { return 1; }

  template <int N>
  FASTGEN_HD_INLINE void apply(T* outputs, const T* noise, int64_t, T* value, T*) const {
    for (int r = 0; r < N; ++r) value[r] = noise[r] < math::sigmoid(outputs[r]) ? T(1) : T(0);
  }
};

// The category at which the distribution function of softmax(logits) passes a uniform number; 0 where a logit is NaN or
// +inf, or all are -inf. The logits give way to running sums.
template <int N, class T>
FASTGEN_HD_INLINE void choose(T* logits, int64_t categories, const T* uniform, int64_t step, T* choice) {
  T top[N], sum[N];
  for (int r = 0; r < N; ++r) top[r] = logits[r], sum[r] = T(0);
  for (int64_t c = 1; c < categories; ++c)
    for (int r = 0; r < N; ++r) top[r] = logits[c * step + r] > top[r] ? logits[c * step + r] : top[r];
  for (int64_t c = 0; c < categories; ++c)
    for (int r = 0; r < N; ++r) logits[c * step + r] = sum[r] += math::exp(logits[c * step + r] - top[r]);
  for (int r = 0; r < N; ++r) sum[r] *= uniform[r], choice[r] = T(0);
  for (int64_t c = 0; c + 1 < categories; ++c)
    for (int r = 0; r < N; ++r) choice[r] += logits[c * step + r] <= sum[r] ? T(1) : T(0);
}

// A category of softmax(outputs), which the network reads one-hot.
template <class T>
struct CategoricalDraw {
  static constexpr int numbers = 1;
  static constexpr bool has_log_derivative = false, one_hot = true;
  FASTGEN_HD int64_t outputs() const { return categories; }
  FASTGEN_HD int64_t columns() const { return categories; }
  int64_t categories;

  template <int N>
  FASTGEN_HD_INLINE void apply(T* outputs, const T* noise, int64_t step, T* value, T*) const {
    choose<N>(outputs, categories, noise, step, value);
  }
};

// A component of softmax(logits) by the first number, then an affine map of the second; the outputs are logits, means and raw
// log-scales of all components.
template <class T>
struct MixtureDraw {
  static constexpr int numbers = 2;
  static constexpr bool has_log_derivative = false, one_hot = false;
  FASTGEN_HD int64_t outputs() const { return 3 * components; }
  static constexpr FASTGEN_HD int64_t columns() { return 1; }
  int64_t components;
  ScaleMap map;

  template <int N>
  FASTGEN_HD_INLINE void apply(T* outputs, const T* noise, int64_t step, T* value, T*) const {
    T choice[N], mean_and_raw[2 * N], log_scale[N];
    choose<N>(outputs, components, noise, step, choice);
    for (int r = 0; r < N; ++r) {
      const int64_t k = static_cast<int64_t>(choice[r]);
      mean_and_raw[r] = outputs[(components + k) * step + r];
      mean_and_raw[N + r] = outputs[(2 * components + k) * step + r];
    }
    Affine<T>{map, false}.template apply<N>(mean_and_raw, noise + step, N, value, log_scale);
  }
};

// Calls f(map) with the type that draws a feature in T.
template <class T, class F>
FASTGEN_HD_INLINE void dispatch_conditional(const Conditional& c, F&& f) {
  switch (c.kind) {
    case ConditionalKind::bernoulli:
      return f(BernoulliDraw<T>{});
    case ConditionalKind::categorical:
      return f(CategoricalDraw<T>{c.size});
    case ConditionalKind::mixture:
      return f(MixtureDraw<T>{c.size, c.map});
    default:
      return f(Affine<T>{c.map, false});
  }
}

}  // namespace
}  // namespace fastgen
