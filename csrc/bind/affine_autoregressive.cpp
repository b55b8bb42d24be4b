#include "cpu/affine_autoregressive.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void forward(const Tensor& x, const Tensor& shift, const Tensor& log_scale, const Optional& log_det_in, bool inverse, int kind,
             double first, double second, const Tensor& z, const Tensor& log_det) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::AffineAutoregressiveForward<T> a;
    a.x = strided<T>(x, "x", rows, features);
    a.shift = strided<T>(shift, "shift", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step);
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    a.map = scale_map(kind, first, second);
    a.z = pointer<T>(z, "z", {rows, features});
    a.log_det = pointer<T>(log_det, "log_det", {rows});
    py::gil_scoped_release unlocked;
    cpu::affine_autoregressive_forward(a);
  });
}

void backward(const Optional& grad_z, const Optional& grad_log_det, const Tensor& x, const Tensor& shift,
              const Tensor& log_scale, bool inverse, int kind, double first, double second, const Optional& grad_x,
              const Optional& grad_shift, const Optional& grad_log_scale) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::AffineAutoregressiveBackward<T> a;
    a.grad_z = strided<T>(grad_z, "grad_z", rows, features);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step);
    a.x = strided<T>(x, "x", rows, features);
    a.shift = strided<T>(shift, "shift", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    a.map = scale_map(kind, first, second);
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, features});
    a.grad_shift = pointer<T>(grad_shift, "grad_shift", {rows, features});
    a.grad_log_scale = pointer<T>(grad_log_scale, "grad_log_scale", {rows, features});
    py::gil_scoped_release unlocked;
    cpu::affine_autoregressive_backward(a);
  });
}

}  // namespace

void bind_affine_autoregressive(py::module_& m) {
  m.def("affine_autoregressive_forward", &forward, "z and log_det of the affine transform, into z and log_det.", py::arg("x"),
        py::arg("shift"), py::arg("log_scale"), py::arg("log_det_in"), py::arg("inverse"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("z"), py::arg("log_det"));
  m.def("affine_autoregressive_backward", &backward,
        "The gradients of affine_autoregressive_forward, into those that are not None.", py::arg("grad_z"),
        py::arg("grad_log_det"), py::arg("x"), py::arg("shift"), py::arg("log_scale"), py::arg("inverse"), py::arg("kind"),
        py::arg("first"), py::arg("second"), py::arg("grad_x"), py::arg("grad_shift"), py::arg("grad_log_scale"));
}

}  // namespace fastgen
