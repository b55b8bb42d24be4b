#include "cpu/planar.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"
#include "bind/layers.h"

namespace py = pybind11;

namespace fastgen {
namespace {

template <class T>
cpu::PlanarParameters<T> parameters(const Tensor& u, const Tensor& w, const Tensor& b, int64_t rows, int64_t features,
                                    bool constrain) {
  const bool shared = u.dims == 2;
  cpu::PlanarParameters<T> p;
  p.count = layer_count(u, "u");
  p.constrain = constrain;
  p.u = rows_of_layers<T>(u, "u", rows, p.count, features, shared, p.u_row, p.u_layer);
  p.w = rows_of_layers<T>(w, "w", rows, p.count, features, shared, p.w_row, p.w_layer);
  p.b = number_of_layers<T>(b, "b", rows, p.count, shared, p.b_row, p.b_layer);
  return p;
}

void forward(const Tensor& z, const Tensor& u, const Tensor& w, const Tensor& b, bool constrain, bool inverse,
             const Tensor& out, const Tensor& log_det, const Optional& saved) {
  expect_features(z, "z");
  const int64_t rows = z.size(0), features = z.size(1);
  dispatch_float(z, "z", [&](auto zero) {
    using T = decltype(zero);
    cpu::PlanarForward<T> a;
    a.z = strided<T>(z, "z", rows, features);
    a.layers = parameters<T>(u, w, b, rows, features, constrain);
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    a.out = pointer<T>(out, "out", {rows, features});
    a.log_det = pointer<T>(log_det, "log_det", {rows});
    a.saved = pointer<T>(saved, "saved", {a.layers.count, rows});
    py::gil_scoped_release unlocked;
    u.dims == 2 ? cpu::planar_shared_forward(a) : cpu::planar_per_row_forward(a);
  });
}

void backward(const Optional& grad_out, const Optional& grad_log_det, const Tensor& z, const Tensor& u, const Tensor& w,
              const Tensor& b, const Tensor& saved, bool constrain, bool inverse, const Optional& grad_in,
              const Optional& grad_u, const Optional& grad_w, const Optional& grad_b) {
  expect_features(z, "z");
  const int64_t rows = z.size(0), features = z.size(1);
  const bool shared = u.dims == 2;
  dispatch_float(z, "z", [&](auto zero) {
    using T = decltype(zero);
    cpu::PlanarBackward<T> a;
    a.grad_out = strided<T>(grad_out, "grad_out", rows, features);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step);
    a.z = strided<T>(z, "z", rows, features);
    a.layers = parameters<T>(u, w, b, rows, features, constrain);
    const int64_t count = a.layers.count;
    a.saved = pointer<T>(saved, "saved", {count, rows});
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    a.grad_in = pointer<T>(grad_in, "grad_in", {rows, features});
    a.grad_u = like<T>(grad_u, "grad_u", shared, rows, count, features);
    a.grad_w = like<T>(grad_w, "grad_w", shared, rows, count, features);
    a.grad_b = like<T>(grad_b, "grad_b", shared, rows, count);
    py::gil_scoped_release unlocked;
    shared ? cpu::planar_shared_backward(a) : cpu::planar_per_row_backward(a);
  });
}

}  // namespace

void bind_planar(py::module_& m) {
  m.def("planar_forward", &forward, "Planar layers or their inverse, into out, log_det and, unless None, saved.", py::arg("z"),
        py::arg("u"), py::arg("w"), py::arg("b"), py::arg("constrain"), py::arg("inverse"), py::arg("out"), py::arg("log_det"),
        py::arg("saved"));
  m.def("planar_backward", &backward,
        "The gradients of planar_forward, into those that are not None; z is what the first layer reads.", py::arg("grad_out"),
        py::arg("grad_log_det"), py::arg("z"), py::arg("u"), py::arg("w"), py::arg("b"), py::arg("saved"), py::arg("constrain"),
        py::arg("inverse"), py::arg("grad_in"), py::arg("grad_u"), py::arg("grad_w"), py::arg("grad_b"));
}

}  // namespace fastgen
