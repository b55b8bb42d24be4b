// The affine map of flat arrays that flows are made of, and its gradients: z = x e^s + shift where it multiplies,
// z = (x - shift) e^-s where it divides.
#pragma once

#include "elementary.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

template <class T>
void transform(bool multiply, int n, const T* __restrict x, const T* __restrict shift, const T* __restrict s, T* __restrict z) {
  if (multiply)
    for (int i = 0; i < n; ++i) z[i] = x[i] * math::exp(s[i]) + shift[i];
  else
    for (int i = 0; i < n; ++i) z[i] = (x[i] - shift[i]) * math::exp(-s[i]);
}

// dz/dx times the gradient of z.
template <class T>
void pull_scale(bool multiply, int n, const T* __restrict grad_z, const T* __restrict s, T* __restrict grad_x) {
  const T sign = multiply ? T(1) : T(-1);
  for (int i = 0; i < n; ++i) grad_x[i] = grad_z[i] * math::exp(sign * s[i]);
}

template <class T>
void pull_shift(bool multiply, int n, const T* __restrict grad_z, const T* __restrict grad_x, T* __restrict grad_shift) {
  for (int i = 0; i < n; ++i) grad_shift[i] = multiply ? grad_z[i] : -grad_x[i];
}

// The gradient of s through z, added to what log_det sends.
template <class T>
void add_pull_s(bool multiply, int n, const T* __restrict grad_x, const T* __restrict x, const T* __restrict shift,
                T* __restrict grad_s) {
  if (multiply)
    for (int i = 0; i < n; ++i) grad_s[i] += grad_x[i] * x[i];
  else
    for (int i = 0; i < n; ++i) grad_s[i] -= grad_x[i] * (x[i] - shift[i]);
}

template <class T>
void multiply_by(int n, const T* __restrict factor, T* __restrict v) {
  for (int i = 0; i < n; ++i) v[i] *= factor[i];
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
