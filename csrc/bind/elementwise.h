// What the bindings of the elementwise operations check: matrices and vectors at any strides.
#pragma once

#include <string>

#include "bind/arguments.h"
#include "cpu/strided.h"
#include "scale_map.h"

namespace fastgen {

inline void expect_features(const Tensor& x, const char* name) {
  if (x.dims != 2 || x.size(1) == 0)
    fail(std::string(name) + ": expected a matrix of at least one column, found " + std::to_string(x.dims) + " dimensions" +
         (x.dims == 2 ? " and no columns" : ""));
}

template <class T>
cpu::Strided<T> strided(const Optional& t, const char* name, int64_t rows, int64_t columns, Device device = Device::cpu) {
  if (!t) return {};
  expect_on(device, *t, name, dtype_of<T>());
  expect_shape(*t, name, {rows, columns});
  return {t->as<T>(), t->step(0), t->step(1)};
}

// One value per row, at any stride, which goes to `step`.
template <class T>
const T* per_row(const Optional& t, const char* name, int64_t rows, int64_t& step, Device device = Device::cpu) {
  step = 0;
  if (!t) return nullptr;
  expect_on(device, *t, name, dtype_of<T>());
  expect_shape(*t, name, {rows});
  step = t->step(0);
  return t->as<T>();
}

inline ScaleMap scale_map(int kind, double first, double second) {
  if (kind < 0 || kind >= kScaleKinds)
    fail("kind: expected a scale map from 0 to " + std::to_string(kScaleKinds - 1) + ", found " + std::to_string(kind));
  return {static_cast<ScaleKind>(kind), first, second};
}

}  // namespace fastgen
