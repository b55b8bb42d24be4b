// What the operations that solve autoregressive networks on CUDA tensors check and lay out alike.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
#include <vector>

#include "bind/autoregressive.h"
#include "bind/elementwise.h"
#include "cuda/autoregressive_system.h"

namespace fastgen {

// A test runs the kernels on the CPU.
#ifdef FASTGEN_EMULATED
constexpr Device kDevice = Device::cpu;
#else
constexpr Device kDevice = Device::cuda;
#endif

template <class W>
constexpr DType stored_as() {
  if constexpr (std::is_same_v<W, cuda::Tf32>) return DType::float32;
  if constexpr (std::is_same_v<W, cuda::Bfloat16>) return DType::bfloat16;
  return dtype_of<W>();
}

// Calls f(T{}, W{}) with the types of values and of weights; `tf32`: whether products may round float32 weights.
template <class F>
void dispatch_types(const Tensor& values, const char* name, const Optionals& params, bool tf32, F&& f) {
  const bool half = !params.empty() && params[0] && params[0]->dtype == DType::bfloat16;
  dispatch_float(values, name, [&](auto zero) {
    if constexpr (std::is_same_v<decltype(zero), float>) {
      if (half) return f(zero, cuda::Bfloat16{});
      if (tf32) return f(zero, cuda::Tf32{});
    }
    f(zero, zero);
  });
}

// Puts a network whose layers fit together, and its walk, where a kernel takes them.
template <class T, class W>
void describe(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count, const Tensor& walk, PerFeature per,
              cuda::Network<T, W>& net) {
  if (layers.size() > cuda::kMaxLayers)
    fail("params: expected at most " + std::to_string(cuda::kMaxLayers) + " layers, found " + std::to_string(layers.size()));
  net = {};
  net.count = static_cast<int32_t>(count);
  net.direct = layers.size() > count;
  net.features = static_cast<int32_t>(layers[0].stair.in / per.columns);
  for (size_t l = 0; l < layers.size(); ++l) {
    const cpu::NetworkLayer<T>& from = layers[l];
    const cpu::Staircase& s = from.stair;
    cuda::Layer<T, W>& to = net.layers[l];
    to.weight = reinterpret_cast<const W*>(from.weight);
    to.bias = from.bias;
    to.in_order = s.in_order;
    to.out_order = s.out_order;
    to.prefix = s.prefix;
    to.suffix = s.suffix;
    to.in = static_cast<int32_t>(s.in);
    to.out = static_cast<int32_t>(s.out);
    to.activation = from.activation;
    to.residual = from.residual;
    if (to.residual >= 0) net.layers[to.residual].is_source = true;
  }
  if (layers[0].stair.in % per.columns)
    fail("params: expected " + std::to_string(per.columns) + " inputs per feature, found " +
         std::to_string(layers[0].stair.in) + " in all");
  const int64_t outputs = per.outputs * net.features, counts = static_cast<int64_t>(count) * (net.features + 2);
  if (net.layers[count - 1].out != outputs)
    fail("params: expected " + std::to_string(outputs) + " outputs of " + std::to_string(net.features) + " features, found " +
         std::to_string(net.layers[count - 1].out));
  expect_on(kDevice, walk, "walk", DType::int32);
  expect_contiguous(walk, "walk");
  if (walk.dims != 1 || walk.size(0) <= counts || walk.size(0) > counts + net.features)
    fail("walk: expected what make_network_plan made of this network");
  net.ready_counts = walk.as<int32_t>();
  net.ends = net.ready_counts + counts;
  net.blocks = static_cast<int32_t>(walk.size(0) - counts);
}

// Gives every layer its place in the state of a tile, the network's outputs last; returns the units it takes without these.
template <class T, class W>
int64_t place_forward(cuda::Network<T, W>& net) {
  int32_t units = net.layers[0].in;
  for (int l = 0; l + 1 < net.count; ++l) {
    cuda::Layer<T, W>& layer = net.layers[l];
    layer.at = units;
    units += layer.out;
    layer.sums_at = layer.is_source ? units : layer.at;
    if (layer.is_source) units += layer.out;
  }
  net.layers[net.count - 1].sums_at = units;
  return units;
}

// The system to solve, its noise excepted, with `v` where the solution goes.
template <class T, class W>
void read_system(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count, const Tensor& walk, PerFeature per,
                 int64_t rows, const Optional& context_terms, const Tensor& v, const char* name,
                 cuda::AutoregressiveSystem<T, W>& a) {
  describe(layers, count, walk, per, a.network);
  a.units = place_forward(a.network);
  a.rows = rows;
  if (context_terms) {
    expect_rows(*context_terms, "context_terms", dtype_of<T>(), rows, layers[0].stair.out, kDevice);
    a.context_terms = context_terms->as<T>();
    a.ld_context = context_terms->step(0);
  }
  a.v = pointer<T>(v, name, {rows, a.network.features}, kDevice);
}

// `allocate(n)` makes a tensor of n values, for a state that does not fit shared memory.
template <class Call>
void run(const Call& a, const pybind11::function& allocate, int64_t stream) {
  if (a.rows == 0) return;
  const cuda::Tiling tiling = cuda::tiling_of(a);
  const pybind11::object scratch = tiling.scratch ? allocate(tiling.scratch) : pybind11::none();
  const Tensor room = tiling.scratch ? read_tensor(scratch.ptr()) : Tensor{};
  pybind11::gil_scoped_release unlocked;
  cuda::run(a, tiling, room.as<typename Call::Value>(), reinterpret_cast<void*>(stream));
}

}  // namespace fastgen
