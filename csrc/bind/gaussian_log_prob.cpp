#include "cpu/gaussian_log_prob.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void forward(const Tensor& x, const Optional& mean, const Optional& log_scale, int kind, double first, double second,
             const Tensor& log_prob) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianLogProbForward<T> a;
    a.x = strided<T>(x, "x", rows, features);
    a.mean = strided<T>(mean, "mean", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.rows = rows;
    a.features = features;
    a.map = scale_map(kind, first, second);
    a.log_prob = pointer<T>(log_prob, "log_prob", {rows});
    py::gil_scoped_release unlocked;
    cpu::gaussian_log_prob_forward(a);
  });
}

void backward(const Tensor& grad, const Tensor& x, const Optional& mean, const Optional& log_scale, int kind, double first,
              double second, const Optional& grad_x, const Optional& grad_mean, const Optional& grad_log_scale) {
  expect_features(x, "x");
  if (grad_log_scale && !log_scale) fail("grad_log_scale: expected None without log_scale");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianLogProbBackward<T> a;
    a.grad = per_row<T>(grad, "grad", rows, a.grad_step);
    a.x = strided<T>(x, "x", rows, features);
    a.mean = strided<T>(mean, "mean", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.rows = rows;
    a.features = features;
    a.map = scale_map(kind, first, second);
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, features});
    a.grad_mean = pointer<T>(grad_mean, "grad_mean", {rows, features});
    a.grad_log_scale = pointer<T>(grad_log_scale, "grad_log_scale", {rows, features});
    py::gil_scoped_release unlocked;
    cpu::gaussian_log_prob_backward(a);
  });
}

}  // namespace

void bind_gaussian_log_prob(py::module_& m) {
  m.def("gaussian_log_prob_forward", &forward, "The log-density of a diagonal Gaussian, into log_prob.", py::arg("x"),
        py::arg("mean"), py::arg("log_scale"), py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("log_prob"));
  m.def("gaussian_log_prob_backward", &backward, "The gradients of gaussian_log_prob_forward, into those that are not None.",
        py::arg("grad"), py::arg("x"), py::arg("mean"), py::arg("log_scale"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("grad_x"), py::arg("grad_mean"), py::arg("grad_log_scale"));
}

}  // namespace fastgen
