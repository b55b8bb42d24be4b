#include "cpu/radial.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"
#include "bind/layers.h"

namespace py = pybind11;

namespace fastgen {
namespace {

template <class T>
cpu::RadialParameters<T> parameters(const Tensor& centre, const Tensor& log_alpha, const Tensor& raw_beta, int64_t rows,
                                    int64_t features) {
  cpu::RadialParameters<T> p;
  p.count = layer_count(centre, "centre");
  p.shared = centre.dims == 2;
  p.centre = rows_of_layers<T>(centre, "centre", rows, p.count, features, p.shared, p.centre_row, p.centre_layer);
  p.log_alpha = number_of_layers<T>(log_alpha, "log_alpha", rows, p.count, p.shared, p.alpha_row, p.alpha_layer);
  p.raw_beta = number_of_layers<T>(raw_beta, "raw_beta", rows, p.count, p.shared, p.beta_row, p.beta_layer);
  return p;
}

void forward(const Tensor& z, const Tensor& centre, const Tensor& log_alpha, const Tensor& raw_beta, bool inverse,
             const Tensor& out, const Tensor& log_det) {
  expect_features(z, "z");
  const int64_t rows = z.size(0), features = z.size(1);
  dispatch_float(z, "z", [&](auto zero) {
    using T = decltype(zero);
    cpu::RadialForward<T> a;
    a.z = strided<T>(z, "z", rows, features);
    a.layers = parameters<T>(centre, log_alpha, raw_beta, rows, features);
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    a.out = pointer<T>(out, "out", {rows, features});
    a.log_det = pointer<T>(log_det, "log_det", {rows});
    py::gil_scoped_release unlocked;
    cpu::radial_forward(a);
  });
}

void backward(const Optional& grad_out, const Optional& grad_log_det, const Tensor& z, const Tensor& centre,
              const Tensor& log_alpha, const Tensor& raw_beta, bool inverse, const Optional& grad_in,
              const Optional& grad_centre, const Optional& grad_log_alpha, const Optional& grad_raw_beta) {
  expect_features(z, "z");
  const int64_t rows = z.size(0), features = z.size(1);
  dispatch_float(z, "z", [&](auto zero) {
    using T = decltype(zero);
    cpu::RadialBackward<T> a;
    a.grad_out = strided<T>(grad_out, "grad_out", rows, features);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step);
    a.z = strided<T>(z, "z", rows, features);
    a.layers = parameters<T>(centre, log_alpha, raw_beta, rows, features);
    a.rows = rows;
    a.features = features;
    a.inverse = inverse;
    const bool shared = a.layers.shared;
    const int64_t count = a.layers.count;
    a.grad_in = pointer<T>(grad_in, "grad_in", {rows, features});
    a.grad_centre = like<T>(grad_centre, "grad_centre", shared, rows, count, features);
    a.grad_log_alpha = like<T>(grad_log_alpha, "grad_log_alpha", shared, rows, count);
    a.grad_raw_beta = like<T>(grad_raw_beta, "grad_raw_beta", shared, rows, count);
    py::gil_scoped_release unlocked;
    cpu::radial_backward(a);
  });
}

}  // namespace

void bind_radial(py::module_& m) {
  m.def("radial_forward", &forward, "Radial layers or their inverse, into out and log_det.", py::arg("z"), py::arg("centre"),
        py::arg("log_alpha"), py::arg("raw_beta"), py::arg("inverse"), py::arg("out"), py::arg("log_det"));
  m.def("radial_backward", &backward, "The gradients of radial_forward, into those that are not None.", py::arg("grad_out"),
        py::arg("grad_log_det"), py::arg("z"), py::arg("centre"), py::arg("log_alpha"), py::arg("raw_beta"), py::arg("inverse"),
        py::arg("grad_in"), py::arg("grad_centre"), py::arg("grad_log_alpha"), py::arg("grad_raw_beta"));
}

}  // namespace fastgen
