#include "cpu/masked_linear.h"

#include "bind/arguments.h"
#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/plan.h"

namespace py = pybind11;

namespace fastgen {
namespace {

// The kernel's derivative comes from its output only: the others are applied outside.
Activation read_activation_from_output(const std::string& name) {
  const Activation a = read_activation(name);
  if (!derives_from_output(a)) fail("activation: expected one that derives from its output, found " + name);
  return a;
}

void forward(const Tensor& x, const Tensor& weight, const Optional& bias, const Optional& in_order, const Optional& out_order,
             const Tensor& prefix, const Tensor& suffix, const std::string& activation, const Tensor& y) {
  expect_matrix(x, "x");
  expect_matrix(weight, "weight");
  const int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    expect_rows(x, "x", dtype_of<T>(), rows, in);
    cpu::MaskedLinearForward<T> a;
    a.x = x.as<T>();
    a.ldx = x.step(0);
    a.weight = pointer<T>(weight, "weight", {out, in});
    a.bias = pointer<T>(bias, "bias", {out});
    a.stair = read_plan(in_order, out_order, prefix, suffix, in, out);
    a.rows = rows;
    a.activation = read_activation_from_output(activation);
    a.y = pointer<T>(y, "y", {rows, out});
    py::gil_scoped_release unlocked;
    cpu::masked_linear_forward(a);
  });
}

void backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& y, const Optional& in_order,
              const Optional& out_order, const Tensor& prefix, const Tensor& suffix, const std::string& activation,
              const Optional& grad_x, const Optional& grad_weight, const Optional& grad_bias) {
  expect_matrix(x, "x");
  expect_matrix(weight, "weight");
  const int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    expect_rows(x, "x", dtype_of<T>(), rows, in);
    expect_rows(grad, "grad", dtype_of<T>(), rows, out);
    cpu::MaskedLinearBackward<T> a;
    a.grad = grad.as<T>();
    a.ld_grad = grad.step(0);
    a.x = x.as<T>();
    a.ldx = x.step(0);
    a.weight = pointer<T>(weight, "weight", {out, in});
    a.y = pointer<T>(y, "y", {rows, out});
    a.stair = read_plan(in_order, out_order, prefix, suffix, in, out);
    a.rows = rows;
    a.activation = read_activation_from_output(activation);
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, in});
    a.grad_weight = pointer<T>(grad_weight, "grad_weight", {out, in});
    a.grad_bias = pointer<T>(grad_bias, "grad_bias", {out});
    py::gil_scoped_release unlocked;
    cpu::masked_linear_backward(a);
  });
}

}  // namespace

void bind_masked_linear(py::module_& m) {
  m.def("masked_linear_forward", &forward, "y = act(x W^T + bias) under the plan's mask, into y.", py::arg("x"),
        py::arg("weight"), py::arg("bias"), py::arg("in_order"), py::arg("out_order"), py::arg("prefix"), py::arg("suffix"),
        py::arg("activation"), py::arg("y"));
  m.def("masked_linear_backward", &backward, "The gradients of masked_linear_forward, into those that are not None.",
        py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("y"), py::arg("in_order"), py::arg("out_order"),
        py::arg("prefix"), py::arg("suffix"), py::arg("activation"), py::arg("grad_x"), py::arg("grad_weight"),
        py::arg("grad_bias"));
}

}  // namespace fastgen
