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

Activation read_activation(const std::string& name) {
  Activation a;
  if (!parse_activation(name.c_str(), a)) fail("activation: expected a known name, found " + name);
  return a;
}

}  // namespace fastgen
