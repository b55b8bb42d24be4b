#include "cpu/masked_mlp.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/network_plan.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void forward(const Tensor& x, const Optionals& params, const Optional& context_terms, const NetworkPlan& plan, const Tensor& y,
             const Optional& saved) {
  expect_matrix(x, "x");
  const int64_t rows = x.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = plan.with<T>(params);
    cpu::MaskedMlpForward<T> a = read_pass<T>(plan.network(layers), x, context_terms);
    a.y = pointer<T>(merged(y, 1, y.dims), "y", {rows, plan.outputs()});
    a.saved = pointer<T>(saved, "saved", {saved_values(a.network, rows)});
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::masked_mlp_forward(a);
  });
}

void backward(const Tensor& grad, const Tensor& x, const Optionals& params, const Tensor& saved, const NetworkPlan& plan,
              const Optional& grad_x, const Optional& grad_context, const Optionals& grad_params) {
  expect_matrix(x, "x");
  const int64_t rows = x.size(0);
  expect_count(grad_params.size(), params.size(), "grad_params");
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    auto layers = plan.with<T>(params);
    read_gradients<T>(grad_params, layers);
    cpu::MaskedMlpBackward<T> a = read_backward_pass<T>(plan.network(layers), x, grad_x, grad_context);
    expect_rows(merged(grad, 1, grad.dims), "grad", dtype_of<T>(), rows, plan.outputs());
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
        py::arg("x"), py::arg("params"), py::arg("context_terms"), py::arg("plan"), py::arg("y"), py::arg("saved"));
  m.def("masked_mlp_backward", &backward, "The gradients of masked_mlp_forward, into those that are not None.", py::arg("grad"),
        py::arg("x"), py::arg("params"), py::arg("saved"), py::arg("plan"), py::arg("grad_x"), py::arg("grad_context"),
        py::arg("grad_params"));
}

}  // namespace fastgen
