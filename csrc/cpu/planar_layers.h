// What planar kernels share: loops over the lanes of a tile, one row a lane.
#pragma once

#include "cpu/simd.h"
#include "planar_layer.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// Solves a + (stretch - 1) tanh(a) = r in N lanes; NaN where stretch < 0. `r` may be `a`.
template <class T, int N>
void solve_lanes(const T* stretch, const T* r, T* a) {
  using Bits = typename math::Limits<T>::Bits;
  T target[N], root[N], side[N];  // side: whence a root is approached; 0 once it stands
  for (int i = 0; i < N; ++i) target[i] = math::abs(r[i]);
  for (int i = 0; i < N; ++i) {
    root[i] = newton_start(target[i], stretch[i]);
    side[i] = stretch[i] >= T(1) ? T(1) : T(-1);
    side[i] = math::abs(root[i]) < math::infinity<T> ? side[i] : T(0);
  }
  for (int step = 0; step < kMostNewtonSteps; ++step) {
    for (int i = 0; i < N; ++i) {
      const T next = newton_step(root[i], target[i], stretch[i]);
      const bool moves = (next - root[i]) * side[i] > T(0);
      side[i] = moves ? side[i] : T(0);
      root[i] = moves ? next : root[i];
    }
    Bits any = 0;
    for (int i = 0; i < N; ++i) any |= math::bit_cast<Bits>(side[i]);
    if (!any) break;
  }
  for (int i = 0; i < N; ++i) a[i] = stretch[i] < T(0) ? T(__builtin_nanf("")) : math::copysign(root[i], r[i]);
}

// What every lane of a tile knows of its layer.
template <class T>
struct SameLayer {
  T stretch, log_stretch, numerator;
  FASTGEN_INLINE SameLayer at(int) const { return *this; }
};

// The same where each lane has a layer of its own.
template <class T>
struct LayerLanes {
  const T *stretch, *log_stretch, *numerator;
  FASTGEN_INLINE SameLayer<T> at(int i) const { return {stretch[i], log_stretch[i], numerator[i]}; }
};

// The gradient of a planar layer, or of its inverse, in N lanes. `reach`: direction . gradient of what lies behind tanh, in
// place of which comes the gradient of a; `grad`: that of log det; `by_stretch`: what the stretch gets, before its factor.
// `Careful`: whether a det may underflow.
template <bool Inverse, bool Careful, int N, class T, class Lanes>
void pull_lanes(const Lanes layers, const T* __restrict a, const T* __restrict grad, T* __restrict tanh, T* __restrict reach,
                T* __restrict by_stretch) {
  for (int i = 0; i < N; ++i) {
    const SameLayer<T> layer = layers.at(i);
    const Tanh<T> h = tanh_with_slope(a[i]);
    const T det = planar_det(h, layer.stretch);
    LogDetSlopes<T> slopes = log_det_slopes(h, det, layer.stretch, layer.numerator);
    if constexpr (Careful) {
      const LogDetSlopes<T> small = small_log_det_slopes(a[i], layer.log_stretch);
      const bool underflown = det < underflow_limit(layer.stretch);
      slopes.by_tanh = underflown ? small.by_tanh : slopes.by_tanh;
      slopes.by_stretch = underflown ? small.by_stretch : slopes.by_stretch;
    }
    const T pulled = h.slope * (reach[i] + grad[i] * slopes.by_tanh);
    tanh[i] = h.value;
    reach[i] = Inverse ? -pulled / det : pulled;
    by_stretch[i] = (Inverse ? -grad[i] : grad[i]) * slopes.by_stretch;
  }
}

template <int N, class T, class Lanes>
void pull_lanes(bool inverse, bool careful, const Lanes layers, const T* a, const T* grad, T* tanh, T* reach, T* by_stretch) {
  if (inverse && careful) return pull_lanes<true, true, N>(layers, a, grad, tanh, reach, by_stretch);
  if (inverse) return pull_lanes<true, false, N>(layers, a, grad, tanh, reach, by_stretch);
  if (careful) return pull_lanes<false, true, N>(layers, a, grad, tanh, reach, by_stretch);
  return pull_lanes<false, false, N>(layers, a, grad, tanh, reach, by_stretch);
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
