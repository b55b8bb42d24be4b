#include "cpu/masked_mlp.h"

#include <algorithm>
#include <vector>

#include "bind/arguments.h"
#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/plan.h"

namespace py = pybind11;

namespace fastgen {
namespace {

using Optionals = std::vector<Optional>;

void expect_count(size_t found, size_t expected, const char* name) {
  if (found != expected)
    fail(std::string(name) + ": expected " + std::to_string(expected) + " entries, found " + std::to_string(found));
}

const Tensor& present(const Optional& t, const std::string& name) {
  if (!t) throw TypeError(name + ": expected a tensor, found None");
  return *t;
}

bool same_order(const int32_t* a, const int32_t* b, int64_t n) {
  if (!a || !b) return a == b;
  return std::equal(a, a + n, b);
}

// Layers that share units list them in one order: the kernels keep units sorted from layer to layer.
template <class T>
void expect_one_order(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count) {
  const char* message = "plan: expected the same order of the units that layers share";
  for (size_t l = 0; l < count; ++l) {
    const cpu::Staircase& s = layers[l].stair;
    if (l > 0 && !same_order(s.in_order, layers[l - 1].stair.out_order, s.in)) fail(message);
    if (layers[l].residual >= 0 && !same_order(s.out_order, layers[layers[l].residual].stair.out_order, s.out)) fail(message);
  }
  if (layers.size() == count) return;
  const cpu::Staircase &direct = layers[count].stair, &first = layers[0].stair, &last = layers[count - 1].stair;
  if (!same_order(direct.in_order, first.in_order, first.in) || !same_order(direct.out_order, last.out_order, last.out))
    fail(message);
}

// The layers of a network, from its parameters, plan (four tensors a layer) and description; the direct one last.
template <class T>
std::vector<cpu::NetworkLayer<T>> read_layers(const Optionals& params, const Optionals& plan,
                                              const std::vector<std::string>& activations,
                                              const std::vector<int64_t>& residuals, bool direct) {
  const size_t count = activations.size();
  if (count == 0) fail("activations: expected at least one layer, found none");
  expect_count(residuals.size(), count, "residuals");
  expect_count(params.size(), 2 * count + direct, "params");
  expect_count(plan.size(), 4 * (count + direct), "plan");
  std::vector<cpu::NetworkLayer<T>> layers(count + direct);
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string name = "params[" + std::to_string(2 * l) + "]";
    const Tensor& weight = present(params[2 * l], name);
    expect_matrix(weight, name.c_str());
    const int64_t in = weight.size(1), out = weight.size(0);
    cpu::NetworkLayer<T>& layer = layers[l];
    layer = {};
    layer.weight = pointer<T>(weight, name.c_str(), {out, in});
    layer.bias = l < count ? pointer<T>(params[2 * l + 1], "bias", {out}) : nullptr;
    layer.stair = read_plan(plan[4 * l], plan[4 * l + 1], present(plan[4 * l + 2], "prefix"),
                            present(plan[4 * l + 3], "suffix"), in, out);
    layer.activation = l < count ? read_activation(activations[l]) : Activation::identity;
    layer.residual = l < count ? static_cast<int>(residuals[l]) : -1;
    const int64_t expected = l == 0 || l == count ? layers[0].stair.in : layers[l - 1].stair.out;
    if (in != expected) fail(name + ": expected " + std::to_string(expected) + " columns, found " + std::to_string(in));
    if (l == count && out != layers[count - 1].stair.out) fail(name + ": expected as many rows as the last layer has");
    if (l < count && residuals[l] != -1) {
      if (residuals[l] < 0 || residuals[l] >= static_cast<int64_t>(l) || layers[residuals[l]].stair.out != out)
        fail("residuals: expected earlier layers of the same width, or -1");
    }
  }
  expect_one_order(layers, count);
  if (layers[count - 1].activation != Activation::identity) fail("activations: expected identity in the last layer");
  return layers;
}

template <class T>
cpu::MaskedNetwork<T> network_of(const std::vector<cpu::NetworkLayer<T>>& layers, size_t count) {
  return {layers.data(), static_cast<int>(count), layers.size() > count ? &layers[count] : nullptr};
}

template <class T>
int64_t saved_values(const cpu::MaskedNetwork<T>& net, int64_t rows) {
  int64_t units = 0;
  for (int l = 0; l + 1 < net.count; ++l) units += net.layers[l].stair.out;
  return units * rows;
}

void forward(const Tensor& x, const Optionals& params, const Optional& context_terms, const Optionals& plan,
             const std::vector<std::string>& activations, const std::vector<int64_t>& residuals, bool direct, const Tensor& y,
             const Optional& saved) {
  expect_matrix(x, "x");
  const int64_t rows = x.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    cpu::MaskedMlpForward<T> a;
    a.network = network_of(layers, activations.size());
    const int64_t in = layers[0].stair.in, first = layers[0].stair.out;
    expect_rows(x, "x", dtype_of<T>(), rows, in);
    if (context_terms) expect_rows(*context_terms, "context_terms", dtype_of<T>(), rows, first);
    a.x = x.as<T>();
    a.ldx = x.step(0);
    a.context_terms = context_terms ? context_terms->as<T>() : nullptr;
    a.ld_context = context_terms ? context_terms->step(0) : 0;
    a.rows = rows;
    a.y = pointer<T>(y, "y", {rows, layers[activations.size() - 1].stair.out});
    a.saved = pointer<T>(saved, "saved", {saved_values(a.network, rows)});
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::masked_mlp_forward(a);
  });
}

void backward(const Tensor& grad, const Tensor& x, const Optionals& params, const Tensor& saved, const Optionals& plan,
              const std::vector<std::string>& activations, const std::vector<int64_t>& residuals, bool direct,
              const Optional& grad_x, const Optional& grad_context, const Optionals& grad_params) {
  expect_matrix(x, "x");
  const int64_t rows = x.size(0);
  expect_count(grad_params.size(), params.size(), "grad_params");
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    for (size_t i = 0; i < grad_params.size(); ++i) {
      cpu::NetworkLayer<T>& layer = layers[i / 2];
      if (i % 2)
        layer.grad_bias = pointer<T>(grad_params[i], "grad_params", {layer.stair.out});
      else
        layer.grad_weight = pointer<T>(grad_params[i], "grad_params", {layer.stair.out, layer.stair.in});
    }
    cpu::MaskedMlpBackward<T> a;
    a.network = network_of(layers, activations.size());
    const int64_t in = layers[0].stair.in;
    expect_rows(x, "x", dtype_of<T>(), rows, in);
    expect_rows(grad, "grad", dtype_of<T>(), rows, layers[activations.size() - 1].stair.out);
    a.grad = grad.as<T>();
    a.ld_grad = grad.step(0);
    a.x = x.as<T>();
    a.ldx = x.step(0);
    a.saved = pointer<T>(saved, "saved", {saved_values(a.network, rows)});
    a.rows = rows;
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, in});
    a.grad_context = pointer<T>(grad_context, "grad_context", {rows, layers[0].stair.out});
    py::gil_scoped_release unlocked;
    cpu::masked_mlp_backward(a);
  });
}

}  // namespace

void bind_masked_mlp(py::module_& m) {
  m.def("masked_mlp_forward", &forward, "A masked network over rows, into y, keeping what backward needs in saved.",
        py::arg("x"), py::arg("params"), py::arg("context_terms"), py::arg("plan"), py::arg("activations"),
        py::arg("residuals"), py::arg("direct"), py::arg("y"), py::arg("saved"));
  m.def("masked_mlp_backward", &backward, "The gradients of masked_mlp_forward, into those that are not None.", py::arg("grad"),
        py::arg("x"), py::arg("params"), py::arg("saved"), py::arg("plan"), py::arg("activations"), py::arg("residuals"),
        py::arg("direct"), py::arg("grad_x"), py::arg("grad_context"), py::arg("grad_params"));
}

}  // namespace fastgen
