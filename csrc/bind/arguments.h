// Tensors as kernels take them: checked, then reduced to a pointer.
#pragma once

#include <optional>

#include "activation.h"
#include "tensor.h"

namespace fastgen {

using Optional = std::optional<Tensor>;

void expect_matrix(const Tensor& t, const char* name);
// A matrix whose last stride is 1.
void expect_rows(const Tensor& t, const char* name, DType dtype, int64_t rows, int64_t features, Device device = Device::cpu);
// t with the axes from `first` to before `last` made one where they lie one after the other; else t as it is.
Tensor merged(const Tensor& t, int first, int last);
Activation read_activation(const std::string& name);

// The data of a contiguous tensor of this shape; null for None.
template <class T>
T* pointer(const Optional& t, const char* name, std::initializer_list<int64_t> shape, Device device = Device::cpu) {
  if (!t) return nullptr;
  expect_on(device, *t, name, dtype_of<T>());
  expect_shape(*t, name, shape);
  expect_contiguous(*t, name);
  return t->as<T>();
}

}  // namespace fastgen
