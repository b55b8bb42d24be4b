#include "cpu/coupling.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/coupling_layout.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void forward(const Tensor& x, const Tensor& shift, const Optional& log_scale, const Optional& log_det_in,
             const Optional& places, int64_t parity, bool inverse, int kind, double first, double second, const Tensor& y,
             const Tensor& log_det) {
  CouplingLayout layout(x, places, parity);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::CouplingForward<T> a;
    layout.add(cpu::kCouplingX, x, "x", dtype_of<T>());
    layout.add(cpu::kCouplingShift, shift, "shift", dtype_of<T>(), true);
    layout.add(cpu::kCouplingLogScale, log_scale, "log_scale", dtype_of<T>(), true);
    a.affine = log_scale.has_value();
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", layout.rows(), a.log_det_step);
    a.rows = layout.rows();
    a.inverse = inverse;
    a.map = scale_map(kind, first, second);
    a.y = layout.result<T>(y, "y");
    a.log_det = pointer<T>(log_det, "log_det", {layout.rows()});
    if (a.rows == 0) return;  // the tables of an item may be of any size
    a.item = layout.item();
    a.x = layout.operand<T>(cpu::kCouplingX, x);
    a.shift = layout.operand<T>(cpu::kCouplingShift, shift);
    a.log_scale = layout.operand<T>(cpu::kCouplingLogScale, log_scale);
    py::gil_scoped_release unlocked;
    cpu::coupling_forward(a);
  });
}

void backward(const Optional& grad_y, const Optional& grad_log_det, const Tensor& x, const Tensor& shift,
              const Optional& log_scale, const Optional& places, int64_t parity, bool inverse, int kind, double first,
              double second, const Optional& grad_x, const Optional& grad_shift, const Optional& grad_log_scale) {
  CouplingLayout layout(x, places, parity);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::CouplingBackward<T> a;
    layout.add(cpu::kCouplingGradY, grad_y, "grad_y", dtype_of<T>());
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", layout.rows(), a.grad_log_det_step);
    layout.add(cpu::kCouplingX, x, "x", dtype_of<T>());
    layout.add(cpu::kCouplingShift, shift, "shift", dtype_of<T>(), true);
    layout.add(cpu::kCouplingLogScale, log_scale, "log_scale", dtype_of<T>(), true);
    a.affine = log_scale.has_value();
    if (grad_log_scale && !log_scale) fail("grad_log_scale: expected None without log_scale");
    a.rows = layout.rows();
    a.inverse = inverse;
    a.map = scale_map(kind, first, second);
    a.grad_x = layout.result<T>(grad_x, "grad_x");
    a.grad_shift = layout.gradient<T>(cpu::kCouplingShift, grad_shift, "grad_shift");
    a.grad_log_scale = layout.gradient<T>(cpu::kCouplingLogScale, grad_log_scale, "grad_log_scale");
    if (a.rows == 0) return;  // the tables of an item may be of any size
    a.item = layout.item();
    a.grad_y = layout.operand<T>(cpu::kCouplingGradY, grad_y);
    a.x = layout.operand<T>(cpu::kCouplingX, x);
    a.shift = layout.operand<T>(cpu::kCouplingShift, shift);
    a.log_scale = layout.operand<T>(cpu::kCouplingLogScale, log_scale);
    py::gil_scoped_release unlocked;
    cpu::coupling_backward(a);
  });
}

}  // namespace

void bind_coupling(py::module_& m) {
  m.def("coupling_forward", &forward,
        "y and log_det of a coupling layer, into y and log_det; without log_scale the additive one.", py::arg("x"),
        py::arg("shift"), py::arg("log_scale"), py::arg("log_det_in"), py::arg("places"), py::arg("parity"), py::arg("inverse"),
        py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("y"), py::arg("log_det"));
  m.def("coupling_backward", &backward, "The gradients of coupling_forward, into those that are not None.", py::arg("grad_y"),
        py::arg("grad_log_det"), py::arg("x"), py::arg("shift"), py::arg("log_scale"), py::arg("places"), py::arg("parity"),
        py::arg("inverse"), py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("grad_x"), py::arg("grad_shift"),
        py::arg("grad_log_scale"));
}

}  // namespace fastgen
