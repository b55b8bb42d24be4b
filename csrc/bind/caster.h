// Lets bound functions take tensors.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "tensor.h"

namespace pybind11::detail {

template <>
struct type_caster<fastgen::Tensor> {
  PYBIND11_TYPE_CASTER(fastgen::Tensor, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    if (source.is_none()) return false;
    value = fastgen::read_tensor(source.ptr());
    return true;
  }
};

}  // namespace pybind11::detail
