// The formulas of one planar layer f(z) = z + direction tanh(a), a = w.z + b, whose det is tanh(a)^2 + tanh'(a) stretch.
// Free of branches where a loop calls them, usable on CUDA. Internal linkage, as in elementary.h.
#pragma once

#include "elementary.h"
#include "scale_map.h"

namespace fastgen {
namespace {

// What w.u and |w|^2 say of a layer: direction = u + missing w, and w.direction = stretch - 1.
template <class T>
struct PlanarLayer {
  T missing, stretch, log_stretch;
  T missing_slope, missing_decay;  // d missing / d w.u, and -d missing / d |w|^2
  T numerator, numerator_slope;    // d log det / d w.u = numerator_slope numerator tanh'(a) / det
};

template <class T>
FASTGEN_HD_INLINE PlanarLayer<T> planar_layer(T along, T norm, bool constrain) {
  if (!constrain) {
    const T stretch = T(1) + along;
    return {T(0), stretch, math::log(math::abs(stretch)), T(0), T(0), T(1), T(1)};
  }
  const bool singular = norm == T(0);
  const T inverse = T(1) / (singular ? T(1) : norm);
  const T missing = singular ? T(0) : (math::softplus(-along) - T(1)) * inverse;
  const LogScale<T> scale = LogSoftplus<T>{}(along);
  const T stretch = singular ? T(1) : math::softplus(along);
  return {missing,           stretch, singular ? T(0) : scale.value,     singular ? T(0) : -math::sigmoid(-along) * inverse,
          missing * inverse, stretch, singular ? T(0) : scale.derivative};
}

template <class T>
struct Tanh {
  T value, slope;
};

// tanh and its derivative, to full relative precision both: with q = 2 / (e^2|a| + 1) they are 1 - q and q (2 - q).
template <class T>
FASTGEN_HD_INLINE Tanh<T> tanh_with_slope(T a) {
  const T e = math::expm1(T(2) * math::abs(a)), q = T(2) / (e + T(2));
  return {math::copysign(e > T(2) ? T(1) - q : T(0.5) * e * q, a), q * (T(2) - q)};
}

template <class T>
FASTGEN_HD_INLINE T planar_det(Tanh<T> h, T stretch) {
  return h.value * h.value + h.slope * stretch;
}

// The smallest normal number: below it a det has lost its digits.
template <class T>
constexpr T smallest_normal = T(1.17549435e-38);
template <>
constexpr double smallest_normal<double> = 2.2250738585072014e-308;

// Below this a det has underflowed: there tanh(a) is a, and tanh'(a) is 1. No det of a layer of larger or negative stretch
// does.
template <class T>
FASTGEN_HD_INLINE T underflow_limit(T stretch) {
  const T small = stretch < T(4) * smallest_normal<T> ? smallest_normal<T> : T(0);
  return stretch >= T(0) ? small : T(0);
}

// log(a^2 + stretch) where the sum has underflowed.
template <class T>
FASTGEN_HD_INLINE T log_small_det(T a, T log_stretch) {
  const T square = T(2) * math::log(math::abs(a));
  const bool more = square > log_stretch;
  const T high = more ? square : log_stretch, low = more ? log_stretch : square;
  return a == T(0) ? log_stretch : high + math::log1p(math::exp(low - high));
}

// Derivatives of log det: by tanh(a), and by the stretch times `numerator`.
template <class T>
struct LogDetSlopes {
  T by_tanh, by_stretch;
};

template <class T>
FASTGEN_HD_INLINE LogDetSlopes<T> log_det_slopes(Tanh<T> h, T det, T stretch, T numerator) {
  const T inverse = T(1) / det;
  return {T(2) * h.value * (T(1) - stretch) * inverse, numerator * h.slope * inverse};
}

// The same where det has underflowed: the share of each term, from their logarithms.
template <class T>
FASTGEN_HD_INLINE LogDetSlopes<T> small_log_det_slopes(T a, T log_stretch) {
  const T share = math::sigmoid(T(2) * math::log(math::abs(a)) - log_stretch);
  return {a == T(0) ? T(0) : T(2) * share / a, a == T(0) ? T(1) : T(1) - share};
}

// What w.u gets, and twice what |w|^2 gets, from the gradient of direction and of the stretch: `across` is w . grad direction.
template <class T>
struct PlanarPull {
  T along, norm;
};

template <class T>
FASTGEN_HD_INLINE PlanarPull<T> planar_pull(T across, T by_stretch, const PlanarLayer<T>& layer) {
  return {across * layer.missing_slope + by_stretch * layer.numerator_slope, T(-2) * across * layer.missing_decay};
}

// a - tanh(a): near 0 its Taylor series, whose coefficients are those of fastgen.reference.planar.
template <class T>
FASTGEN_HD_INLINE T minus_tanh(T a, T tanh) {
  const T square = a * a;
  const T series = math::polynomial(square, T(-6404582.0 / 10854718875.0), T(929569.0 / 638512875.0), T(-21844.0 / 6081075.0),
                                    T(1382.0 / 155925.0), T(-62.0 / 2835.0), T(17.0 / 315.0), T(-2.0 / 15.0), T(1.0 / 3.0));
  return math::abs(a) < T(0.1) ? a * square * series : a - tanh;
}

// The root a >= 0 of a + (stretch - 1) tanh(a) = target, target >= 0, is sought by Newton's method from one side: the left
// side is concave for stretch >= 1, where iterates rise, and convex below, where they fall. It ends when a step does not.
constexpr int kMostNewtonSteps = 100;

template <class T>
FASTGEN_HD_INLINE T newton_start(T target, T stretch) {
  const T first = target / stretch, second = target - (stretch - T(1));
  const T rising = first > second ? first : second, falling = first < second ? first : second;
  // cbrt(5 target), by way of the logarithm.
  const T near = math::exp(math::log(T(5) * target) * T(1.0 / 3.0));
  const T a = stretch >= T(1) ? rising : (near < T(1) && near < falling ? near : falling);
  return target == T(0) ? T(0) : a;
}

template <class T>
FASTGEN_HD_INLINE T newton_step(T a, T target, T stretch) {
  const Tanh<T> h = tanh_with_slope(a);
  const T slope = planar_det(h, stretch);
  return a - (minus_tanh(a, h.value) + stretch * h.value - target) / (slope == T(0) ? T(1) : slope);
}

}  // namespace
}  // namespace fastgen
