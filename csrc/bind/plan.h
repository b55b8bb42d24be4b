// Checks a plan that came from Python before a kernel walks it.
#pragma once

#include <optional>

#include "cpu/staircase.h"
#include "tensor.h"

namespace fastgen {

// A plan of an (in -> out) layer. Raises unless prefix and suffix never fall and stay within bounds, and the orders, where
// given, are permutations; what lies on another device than the CPU is not read.
cpu::Staircase read_plan(const std::optional<Tensor>& in_order, const std::optional<Tensor>& out_order, const Tensor& prefix,
                         const Tensor& suffix, int64_t in, int64_t out, Device device = Device::cpu);

}  // namespace fastgen
