#include "bind/plan.h"

#include <vector>

namespace fastgen {
namespace {

const int32_t* read_order(const std::optional<Tensor>& order, const char* name, int64_t n, Device device) {
  if (!order) return nullptr;
  expect_on(device, *order, name, DType::int32);
  expect_shape(*order, name, {n});
  expect_contiguous(*order, name);
  const int32_t* values = order->as<int32_t>();
  if (device != Device::cpu) return values;
  std::vector<bool> seen(n);
  for (int64_t i = 0; i < n; ++i) {
    if (values[i] < 0 || values[i] >= n || seen[values[i]])
      fail(std::string(name) + ": expected a permutation of 0.." + std::to_string(n - 1));
    seen[values[i]] = true;
  }
  return values;
}

const int32_t* read_steps(const Tensor& steps, const char* name, int64_t n, int64_t limit, Device device) {
  expect_on(device, steps, name, DType::int32);
  expect_shape(steps, name, {n});
  expect_contiguous(steps, name);
  const int32_t* values = steps.as<int32_t>();
  if (device != Device::cpu) return values;
  int32_t before = 0;
  bool good = true;
  for (int64_t i = 0; i < n; ++i) good = good & (values[i] >= before) & (values[i] <= limit), before = values[i];
  if (!good) fail(std::string(name) + ": expected values that never fall, from 0 to " + std::to_string(limit));
  return values;
}

}  // namespace

cpu::Staircase read_plan(const std::optional<Tensor>& in_order, const std::optional<Tensor>& out_order, const Tensor& prefix,
                         const Tensor& suffix, int64_t in, int64_t out, Device device) {
  if (in < 1 || out < 1) fail("weight: expected at least one row and one column");
  cpu::Staircase s{};
  s.in = in;
  s.out = out;
  s.in_order = read_order(in_order, "in_order", in, device);
  s.out_order = read_order(out_order, "out_order", out, device);
  s.prefix = read_steps(prefix, "prefix", out, in, device);
  s.suffix = read_steps(suffix, "suffix", in, out, device);
  return s;
}

}  // namespace fastgen
