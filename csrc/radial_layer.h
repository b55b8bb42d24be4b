// The formulas of one radial layer f(z) = c + (z - c) (r + reach) / (r + alpha), r = |z - c|. Free of branches where a loop
// calls them, usable on CUDA. Internal linkage, as in elementary.h.
#pragma once

#include "elementary.h"

namespace fastgen {
namespace {

template <class T>
FASTGEN_HD_INLINE T radial_ratio(T r, T alpha, T reach) {
  return (r + reach) / (r + alpha);
}

template <class T>
FASTGEN_HD_INLINE T radial_numerator(T r, T alpha, T reach) {
  return r * r + T(2) * alpha * r + alpha * reach;
}

template <class T>
FASTGEN_HD_INLINE T radial_log_det(T r, T alpha, T reach, T features) {
  const T sum = r + alpha;
  return (features - T(1)) * math::log(radial_ratio(r, alpha, reach)) +
         math::log(radial_numerator(r, alpha, reach) / (sum * sum));
}

// The root r >= 0 of r (r + reach) / (r + alpha) = length.
template <class T>
FASTGEN_HD_INLINE T radial_root(T length, T alpha, T reach) {
  const T d = length - reach, product = T(4) * alpha * length, q = math::sqrt(d * d + product);
  const T far = T(0.5) * (d + q), near = T(0.5) * product / (d > T(0) ? T(1) : q - d);
  return d > T(0) ? far : near;
}

// What the gradient of a layer, or of its inverse, is made of: `grad` that arrives becomes scale grad + share (z - c).
template <class T>
struct RadialPull {
  T scale, share, alpha, reach;
};

// `along`: grad . (z - c); `grad`: that of log det. r and z are of the side that the layer reads, the inverse's result.
template <class T>
FASTGEN_HD_INLINE RadialPull<T> radial_pull(bool inverse, T r, T along, T grad, T alpha, T reach, T features) {
  const T sum = T(1) / (r + alpha), difference = (alpha - reach) * sum, numerator = T(1) / radial_numerator(r, alpha, reach);
  const T ratio = radial_ratio(r, alpha, reach), rest = (features - T(1)) / (r + reach);
  const T by_r = difference * (rest + T(2) * alpha * numerator);
  const T by_reach = rest + alpha * numerator;
  const T by_alpha = sum * ((reach * r - T(2) * alpha * r - alpha * reach) * numerator - (features - T(1)));
  const T over = r > T(0) ? T(1) / r : T(0);
  if (!inverse)
    return {ratio, over * (along * difference * sum + grad * by_r), grad * by_alpha - along * ratio * sum,
            grad * by_reach + along * sum};
  // Across the radius the inverse divides by the ratio, along it by the slope.
  const T slope = (r + alpha) * (r + alpha) * numerator, outward = over * along, moved = (outward - grad * by_r) * slope * r;
  return {T(1) / ratio, -slope * (outward * difference / (r + reach) + over * grad * by_r),
          moved * ratio * sum - grad * by_alpha, -moved * sum - grad * by_reach};
}

}  // namespace
}  // namespace fastgen
