#include "bind/arguments.h"

namespace fastgen {

void expect_matrix(const Tensor& t, const char* name) {
  if (t.dims != 2) fail(std::string(name) + ": expected a matrix, found " + std::to_string(t.dims) + " dimensions");
}

void expect_rows(const Tensor& t, const char* name, DType dtype, int64_t rows, int64_t features, Device device) {
  expect_on(device, t, name, dtype);
  expect_shape(t, name, {rows, features});
  expect_unit_stride(t, name);
}

Tensor merged(const Tensor& t, int first, int last) {
  if (last - first < 2) return t;
  int64_t size = 1, step = 1;
  for (int d = last - 1; d >= first; --d) {
    if (t.shape[d] == 1) continue;
    if (size == 1)
      step = t.stride[d];
    else if (t.numel() > 0 && t.stride[d] != size * step)
      return t;
    size *= t.shape[d];
  }
  Tensor one = t;
  one.shape[first] = size, one.stride[first] = step;
  one.dims = first + 1 + t.dims - last;
  for (int d = last; d < t.dims; ++d)
    one.shape[first + 1 + d - last] = t.shape[d], one.stride[first + 1 + d - last] = t.stride[d];
  return one;
}

Activation read_activation(const std::string& name) {
  Activation a;
  if (!parse_activation(name.c_str(), a)) fail("activation: expected a known name, found " + name);
  return a;
}

}  // namespace fastgen
