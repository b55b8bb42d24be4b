#include "cpu/masked_mlp.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/network.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void forward(const Tensor& x, const Optionals& params, const Optional& context_terms, const Optionals& plan,
             const std::vector<std::string>& activations, const std::vector<int64_t>& residuals, bool direct, const Tensor& y,
             const Optional& saved) {
  expect_matrix(x, "x");
  const int64_t rows = x.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    cpu::MaskedMlpForward<T> a = read_pass<T>(network_of(layers, activations.size()), x, context_terms);
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
    read_gradients<T>(grad_params, layers);
    cpu::MaskedMlpBackward<T> a = read_backward_pass<T>(network_of(layers, activations.size()), x, grad_x, grad_context);
    expect_rows(grad, "grad", dtype_of<T>(), rows, layers[activations.size() - 1].stair.out);
    a.grad = grad.as<T>();
    a.ld_grad = grad.step(0);
    a.saved = pointer<T>(saved, "saved", {saved_values(a.network, rows)});
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
