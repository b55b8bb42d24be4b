// What the bindings of planar and radial layers check: parameters that all rows share, or that each row has of its own.
#pragma once

#include <string>

#include "bind/arguments.h"

namespace fastgen {

inline int64_t layer_count(const Tensor& t, const char* name) {
  if (t.dims != 2 && t.dims != 3) fail(std::string(name) + ": expected 2 or 3 dimensions, found " + std::to_string(t.dims));
  if (t.size(-2) == 0) fail(std::string(name) + ": expected at least one layer, found none");
  return t.size(-2);
}

// (count, features), or (rows, count, features) with features one after the other; `row` and `layer` are its steps.
template <class T>
const T* rows_of_layers(const Tensor& t, const char* name, int64_t rows, int64_t count, int64_t features, bool shared,
                        int64_t& row, int64_t& layer) {
  expect_cpu(t, name, dtype_of<T>());
  if (shared)
    expect_shape(t, name, {count, features});
  else
    expect_shape(t, name, {rows, count, features});
  expect_unit_stride(t, name);
  row = shared ? 0 : t.step(0);
  layer = t.step(-2);
  return t.as<T>();
}

// One number a layer: (count,), or (rows, count), at any strides.
template <class T>
const T* number_of_layers(const Tensor& t, const char* name, int64_t rows, int64_t count, bool shared, int64_t& row,
                          int64_t& layer) {
  expect_cpu(t, name, dtype_of<T>());
  if (shared)
    expect_shape(t, name, {count});
  else
    expect_shape(t, name, {rows, count});
  row = shared ? 0 : t.step(0);
  layer = t.step(-1);
  return t.as<T>();
}

// The gradients of both kinds of parameter, of their shapes.
template <class T>
T* like(const Optional& grad, const char* name, bool shared, int64_t rows, int64_t count, int64_t features) {
  return shared ? pointer<T>(grad, name, {count, features}) : pointer<T>(grad, name, {rows, count, features});
}

template <class T>
T* like(const Optional& grad, const char* name, bool shared, int64_t rows, int64_t count) {
  return shared ? pointer<T>(grad, name, {count}) : pointer<T>(grad, name, {rows, count});
}

}  // namespace fastgen
