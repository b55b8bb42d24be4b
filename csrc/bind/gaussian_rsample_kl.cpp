#include "cpu/gaussian_rsample_kl.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

int64_t read_seed(const Tensor& seed) {
  expect_cpu(seed, "seed", DType::int64);
  if (seed.numel() != 1) fail("seed: expected one number, found " + std::to_string(seed.numel()));
  return *seed.as<int64_t>();
}

template <class T>
cpu::GaussianSamples<T> samples_of(const Tensor& mean, const Tensor& log_var, const Optional& prior_mean,
                                   const Optional& prior_log_var, int64_t samples, const Tensor& seed) {
  expect_features(mean, "mean");
  if (samples < 1) fail("samples: expected at least 1, found " + std::to_string(samples));
  if (prior_mean.has_value() != prior_log_var.has_value()) fail("prior_log_var: expected with prior_mean, or neither");
  const int64_t rows = mean.size(0), features = mean.size(1);
  cpu::GaussianSamples<T> from;
  from.mean = strided<T>(mean, "mean", rows, features);
  from.log_var = strided<T>(log_var, "log_var", rows, features);
  from.prior_mean = strided<T>(prior_mean, "prior_mean", rows, features);
  from.prior_log_var = strided<T>(prior_log_var, "prior_log_var", rows, features);
  from.samples = samples;
  from.rows = rows;
  from.features = features;
  from.seed = read_seed(seed);
  return from;
}

template <class T>
cpu::SampleGradient<T> gradient_of_z(const Optional& grad_z, const cpu::GaussianSamples<T>& from) {
  if (!grad_z) return {};
  expect_cpu(*grad_z, "grad_z", dtype_of<T>());
  expect_shape(*grad_z, "grad_z", {from.samples, from.rows, from.features});
  return {{grad_z->as<T>(), grad_z->step(1), grad_z->step(2)}, grad_z->step(0)};
}

template <class T>
cpu::PosteriorGradients<T> gradients(const cpu::GaussianSamples<T>& from, const Optional& mean, const Optional& log_var,
                                     const Optional& prior_mean, const Optional& prior_log_var) {
  return {pointer<T>(mean, "grad_mean", {from.rows, from.features}),
          pointer<T>(log_var, "grad_log_var", {from.rows, from.features}),
          pointer<T>(prior_mean, "grad_prior_mean", {from.rows, from.features}),
          pointer<T>(prior_log_var, "grad_prior_log_var", {from.rows, from.features})};
}

void kl_forward(const Tensor& mean, const Tensor& log_var, const Optional& prior_mean, const Optional& prior_log_var,
                int64_t samples, double free_bits, const Tensor& seed, const Tensor& z, const Tensor& kl) {
  dispatch_float(mean, "mean", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianRsampleKlForward<T> a;
    a.from = samples_of<T>(mean, log_var, prior_mean, prior_log_var, samples, seed);
    a.free_bits = static_cast<T>(free_bits);
    a.z = pointer<T>(z, "z", {samples, a.from.rows, a.from.features});
    a.kl = pointer<T>(kl, "kl", {a.from.rows});
    py::gil_scoped_release unlocked;
    cpu::gaussian_rsample_kl_forward(a);
  });
}

void kl_backward(const Optional& grad_z, const Optional& grad_kl, const Tensor& mean, const Tensor& log_var,
                 const Optional& prior_mean, const Optional& prior_log_var, int64_t samples, double free_bits,
                 const Tensor& seed, const Optional& grad_mean, const Optional& grad_log_var, const Optional& grad_prior_mean,
                 const Optional& grad_prior_log_var) {
  dispatch_float(mean, "mean", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianRsampleKlBackward<T> a;
    a.from = samples_of<T>(mean, log_var, prior_mean, prior_log_var, samples, seed);
    a.free_bits = static_cast<T>(free_bits);
    a.grad_z = gradient_of_z(grad_z, a.from);
    a.grad_kl = per_row<T>(grad_kl, "grad_kl", a.from.rows, a.grad_kl_step);
    a.grads = gradients(a.from, grad_mean, grad_log_var, grad_prior_mean, grad_prior_log_var);
    py::gil_scoped_release unlocked;
    cpu::gaussian_rsample_kl_backward(a);
  });
}

void log_ratio_forward(const Tensor& mean, const Tensor& log_var, const Optional& prior_mean, const Optional& prior_log_var,
                       int64_t samples, const Tensor& seed, const Tensor& z, const Tensor& log_ratio) {
  dispatch_float(mean, "mean", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianRsampleLogRatioForward<T> a;
    a.from = samples_of<T>(mean, log_var, prior_mean, prior_log_var, samples, seed);
    a.z = pointer<T>(z, "z", {samples, a.from.rows, a.from.features});
    a.log_ratio = pointer<T>(log_ratio, "log_ratio", {samples, a.from.rows});
    py::gil_scoped_release unlocked;
    cpu::gaussian_rsample_log_ratio_forward(a);
  });
}

void log_ratio_backward(const Optional& grad_z, const Optional& grad_log_ratio, const Tensor& mean, const Tensor& log_var,
                        const Optional& prior_mean, const Optional& prior_log_var, int64_t samples, const Tensor& seed,
                        const Optional& grad_mean, const Optional& grad_log_var, const Optional& grad_prior_mean,
                        const Optional& grad_prior_log_var) {
  dispatch_float(mean, "mean", [&](auto zero) {
    using T = decltype(zero);
    cpu::GaussianRsampleLogRatioBackward<T> a;
    a.from = samples_of<T>(mean, log_var, prior_mean, prior_log_var, samples, seed);
    a.grad_z = gradient_of_z(grad_z, a.from);
    a.grad_log_ratio = strided<T>(grad_log_ratio, "grad_log_ratio", samples, a.from.rows);
    a.grads = gradients(a.from, grad_mean, grad_log_var, grad_prior_mean, grad_prior_log_var);
    py::gil_scoped_release unlocked;
    cpu::gaussian_rsample_log_ratio_backward(a);
  });
}

}  // namespace

void bind_gaussian_rsample_kl(py::module_& m) {
  m.def("gaussian_rsample_kl_forward", &kl_forward, "Samples of a diagonal Gaussian and its divergence, into z and kl.",
        py::arg("mean"), py::arg("log_var"), py::arg("prior_mean"), py::arg("prior_log_var"), py::arg("samples"),
        py::arg("free_bits"), py::arg("seed"), py::arg("z"), py::arg("kl"));
  m.def("gaussian_rsample_kl_backward", &kl_backward,
        "The gradients of gaussian_rsample_kl_forward, into those that are not None.", py::arg("grad_z"), py::arg("grad_kl"),
        py::arg("mean"), py::arg("log_var"), py::arg("prior_mean"), py::arg("prior_log_var"), py::arg("samples"),
        py::arg("free_bits"), py::arg("seed"), py::arg("grad_mean"), py::arg("grad_log_var"), py::arg("grad_prior_mean"),
        py::arg("grad_prior_log_var"));
  m.def("gaussian_rsample_log_ratio_forward", &log_ratio_forward,
        "Samples of a diagonal Gaussian and the log-ratio of its density to the prior's, into z and log_ratio.",
        py::arg("mean"), py::arg("log_var"), py::arg("prior_mean"), py::arg("prior_log_var"), py::arg("samples"),
        py::arg("seed"), py::arg("z"), py::arg("log_ratio"));
  m.def("gaussian_rsample_log_ratio_backward", &log_ratio_backward,
        "The gradients of gaussian_rsample_log_ratio_forward, into those that are not None.", py::arg("grad_z"),
        py::arg("grad_log_ratio"), py::arg("mean"), py::arg("log_var"), py::arg("prior_mean"), py::arg("prior_log_var"),
        py::arg("samples"), py::arg("seed"), py::arg("grad_mean"), py::arg("grad_log_var"), py::arg("grad_prior_mean"),
        py::arg("grad_prior_log_var"));
}

}  // namespace fastgen
