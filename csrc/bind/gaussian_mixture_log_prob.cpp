#include "cpu/gaussian_mixture_log_prob.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

// Log-weights of shape (components,), the same for all rows, or (rows, components).
template <class T>
cpu::Strided<T> log_weights_of(const Tensor& t, int64_t rows, int64_t components) {
  expect_cpu(t, "log_weights", dtype_of<T>());
  if (t.dims == 1) {
    expect_shape(t, "log_weights", {components});
    return {t.as<T>(), 0, t.step(0)};
  }
  expect_shape(t, "log_weights", {rows, components});
  return {t.as<T>(), t.step(0), t.step(1)};
}

template <class T>
cpu::GaussianMixture<T> mixture(const Tensor& x, const Tensor& log_weights, const Tensor& means, const Tensor& log_scales) {
  expect_features(x, "x");
  expect_features(means, "means");
  if (means.size(0) == 0) fail("means: expected at least one component");
  cpu::GaussianMixture<T> m;
  m.rows = x.size(0);
  m.components = means.size(0);
  m.features = x.size(1);
  m.x = strided<T>(x, "x", m.rows, m.features);
  m.own_weights = log_weights.dims != 1;
  m.log_weights = log_weights_of<T>(log_weights, m.rows, m.components);
  m.means = strided<T>(means, "means", m.components, m.features);
  m.log_scales = strided<T>(log_scales, "log_scales", m.components, m.features);
  return m;
}

void forward(const Tensor& x, const Tensor& log_weights, const Tensor& means, const Tensor& log_scales, const Tensor& log_prob,
             const Tensor& remainder) {
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianMixtureLogProbForward<T> a;
    a.mixture = mixture<T>(x, log_weights, means, log_scales);
    a.log_prob = pointer<T>(log_prob, "log_prob", {a.mixture.rows});
    a.remainder = pointer<T>(remainder, "remainder", {a.mixture.rows});
    py::gil_scoped_release unlocked;
    cpu::gaussian_mixture_log_prob_forward(a);
  });
}

void backward(const Tensor& grad, const Tensor& log_prob, const Tensor& remainder, const Tensor& x, const Tensor& log_weights,
              const Tensor& means, const Tensor& log_scales, const Optional& grad_x, const Optional& grad_log_weights,
              const Optional& grad_means, const Optional& grad_log_scales) {
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianMixtureLogProbBackward<T> a;
    a.mixture = mixture<T>(x, log_weights, means, log_scales);
    const int64_t rows = a.mixture.rows, components = a.mixture.components, features = a.mixture.features;
    a.grad = per_row<T>(grad, "grad", rows, a.grad_step);
    a.log_prob = pointer<T>(log_prob, "log_prob", {rows});
    a.remainder = pointer<T>(remainder, "remainder", {rows});
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, features});
    a.grad_log_weights = log_weights.dims == 1 ? pointer<T>(grad_log_weights, "grad_log_weights", {components})
                                               : pointer<T>(grad_log_weights, "grad_log_weights", {rows, components});
    a.grad_means = pointer<T>(grad_means, "grad_means", {components, features});
    a.grad_log_scales = pointer<T>(grad_log_scales, "grad_log_scales", {components, features});
    py::gil_scoped_release unlocked;
    cpu::gaussian_mixture_log_prob_backward(a);
  });
}

}  // namespace

void bind_gaussian_mixture_log_prob(py::module_& m) {
  m.def("gaussian_mixture_log_prob_forward", &forward,
        "The log-density of a mixture of Gaussians, into log_prob, and what rounding took off it, into remainder.",
        py::arg("x"), py::arg("log_weights"), py::arg("means"), py::arg("log_scales"), py::arg("log_prob"),
        py::arg("remainder"));
  m.def("gaussian_mixture_log_prob_backward", &backward,
        "The gradients of gaussian_mixture_log_prob_forward, into those that are not None.", py::arg("grad"),
        py::arg("log_prob"), py::arg("remainder"), py::arg("x"), py::arg("log_weights"), py::arg("means"),
        py::arg("log_scales"), py::arg("grad_x"), py::arg("grad_log_weights"), py::arg("grad_means"),
        py::arg("grad_log_scales"));
}

}  // namespace fastgen
