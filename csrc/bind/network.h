// Reads a masked network that came from Python: parameters, plan and description.
#pragma once

#include <string>
#include <vector>

#include "bind/arguments.h"
#include "cpu/masked_mlp.h"

namespace fastgen {

using Optionals = std::vector<Optional>;

void expect_count(size_t found, size_t expected, const char* name);

// A layer but for its parameters.
struct LayerPlan {
  cpu::Staircase stair;
  Activation activation;
  int residual;
};

// The layers of a network, from its plan (four tensors a layer) and description; the direct one last. Raises unless they fit
// together.
std::vector<LayerPlan> read_layer_plans(const Optionals& plan, const std::vector<std::string>& activations,
                                        const std::vector<int64_t>& residuals, bool direct, Device device = Device::cpu);

// The layers with their parameters. Raises unless these have the shapes that the plans ask for. Weights may be of another
// dtype, for a kernel that reads them so.
template <class T>
std::vector<cpu::NetworkLayer<T>> with_parameters(const std::vector<LayerPlan>& plans, bool direct, const Optionals& params,
                                                  Device device = Device::cpu, DType weights = dtype_of<T>());

template <class T>
std::vector<cpu::NetworkLayer<T>> read_layers(const Optionals& params, const Optionals& plan,
                                              const std::vector<std::string>& activations,
                                              const std::vector<int64_t>& residuals, bool direct, Device device = Device::cpu,
                                              DType weights = dtype_of<T>()) {
  return with_parameters<T>(read_layer_plans(plan, activations, residuals, direct, device), direct, params, device, weights);
}

template <class T>
cpu::MaskedNetwork<T> network_of(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count) {
  return {layers.data(), static_cast<int>(count), layers.size() > count ? &layers[count] : nullptr};
}

// Where the gradients of the parameters go, those that are not null.
template <class T>
void read_gradients(const Optionals& grads, std::vector<cpu::NetworkLayer<T>>& layers) {
  for (size_t i = 0; i < grads.size(); ++i) {
    cpu::NetworkLayer<T>& layer = layers[i / 2];
    if (i % 2)
      layer.grad_bias = pointer<T>(grads[i], "grad_params", {layer.stair.out});
    else
      layer.grad_weight = pointer<T>(grads[i], "grad_params", {layer.stair.out, layer.stair.in});
  }
}

// What masked_mlp_forward keeps for a backward pass: one value per row and hidden unit.
template <class T>
int64_t saved_values(const cpu::MaskedNetwork<T>& net, int64_t rows) {
  int64_t units = 0;
  for (int l = 0; l + 1 < net.count; ++l) units += net.layers[l].stair.out;
  return units * rows;
}

// A pass, forward or back, over the rows of x.
template <template <class> class Pass, class T>
Pass<T> pass_over(const cpu::MaskedNetwork<T>& network, const Tensor& x) {
  Pass<T> a{};
  a.network = network;
  a.rows = x.size(0);
  expect_rows(x, "x", dtype_of<T>(), a.rows, network.layers[0].stair.in);
  a.x = x.as<T>();
  a.ldx = x.step(0);
  return a;
}

// The forward one, but for where its results go.
template <class T>
cpu::MaskedMlpForward<T> read_pass(const cpu::MaskedNetwork<T>& network, const Tensor& x, const Optional& context_terms) {
  auto a = pass_over<cpu::MaskedMlpForward>(network, x);
  if (!context_terms) return a;
  expect_rows(*context_terms, "context_terms", dtype_of<T>(), a.rows, network.layers[0].stair.out);
  a.context_terms = context_terms->as<T>();
  a.ld_context = context_terms->step(0);
  return a;
}

// The one back, but for what comes in and what was saved.
template <class T>
cpu::MaskedMlpBackward<T> read_backward_pass(const cpu::MaskedNetwork<T>& network, const Tensor& x, const Optional& grad_x,
                                             const Optional& grad_context) {
  auto a = pass_over<cpu::MaskedMlpBackward>(network, x);
  a.grad_x = pointer<T>(grad_x, "grad_x", {a.rows, network.layers[0].stair.in});
  a.grad_context = pointer<T>(grad_context, "grad_context", {a.rows, network.layers[0].stair.out});
  return a;
}

}  // namespace fastgen
