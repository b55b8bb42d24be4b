#include "cpu/likelihoods.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void bernoulli_forward(const Tensor& x, const Tensor& logits, const Tensor& log_prob) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    const cpu::BernoulliForward<T> a{strided<T>(x, "x", rows, features), strided<T>(logits, "logits", rows, features), rows,
                                     features, pointer<T>(log_prob, "log_prob", {rows})};
    py::gil_scoped_release unlocked;
    cpu::bernoulli_log_prob_forward(a);
  });
}

void bernoulli_backward(const Tensor& grad, const Tensor& x, const Tensor& logits, const Optional& grad_x,
                        const Optional& grad_logits) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::BernoulliBackward<T> a;
    a.grad = per_row<T>(grad, "grad", rows, a.grad_step);
    a.x = strided<T>(x, "x", rows, features);
    a.logits = strided<T>(logits, "logits", rows, features);
    a.rows = rows;
    a.features = features;
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, features});
    a.grad_logits = pointer<T>(grad_logits, "grad_logits", {rows, features});
    py::gil_scoped_release unlocked;
    cpu::bernoulli_log_prob_backward(a);
  });
}

double half_of(int64_t levels) {
  if (levels < 2) fail("levels: expected at least 2, found " + std::to_string(levels));
  return 0.5 / static_cast<double>(levels - 1);
}

void logistic_forward(const Tensor& x, const Tensor& mean, const Tensor& log_scale, int64_t levels, const Tensor& log_prob) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::DiscretizedLogisticForward<T> a;
    a.x = strided<T>(x, "x", rows, features);
    a.mean = strided<T>(mean, "mean", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.rows = rows;
    a.features = features;
    a.half = static_cast<T>(half_of(levels));
    a.log_prob = pointer<T>(log_prob, "log_prob", {rows});
    py::gil_scoped_release unlocked;
    cpu::discretized_logistic_log_prob_forward(a);
  });
}

void logistic_backward(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& log_scale, int64_t levels,
                       const Optional& grad_x, const Optional& grad_mean, const Optional& grad_log_scale) {
  expect_features(x, "x");
  const int64_t rows = x.size(0), features = x.size(1);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    cpu::DiscretizedLogisticBackward<T> a;
    a.grad = per_row<T>(grad, "grad", rows, a.grad_step);
    a.x = strided<T>(x, "x", rows, features);
    a.mean = strided<T>(mean, "mean", rows, features);
    a.log_scale = strided<T>(log_scale, "log_scale", rows, features);
    a.rows = rows;
    a.features = features;
    a.half = static_cast<T>(half_of(levels));
    a.grad_x = pointer<T>(grad_x, "grad_x", {rows, features});
    a.grad_mean = pointer<T>(grad_mean, "grad_mean", {rows, features});
    a.grad_log_scale = pointer<T>(grad_log_scale, "grad_log_scale", {rows, features});
    py::gil_scoped_release unlocked;
    cpu::discretized_logistic_log_prob_backward(a);
  });
}

// Positions are the entries of x, of whatever axes; logits have one more.
Tensor positions_of(const Tensor& logits) { return merged(logits, 0, logits.dims - 1); }

void categorical_forward(const Tensor& x, const Tensor& all, const Tensor& log_prob) {
  const Tensor logits = positions_of(all);
  expect_features(logits, "logits");
  dispatch_float(logits, "logits", [&](auto zero) {
    using T = decltype(zero);
    cpu::CategoricalForward<T> a;
    a.positions = logits.size(0);
    a.categories = logits.size(1);
    a.x = per_row<int64_t>(merged(x, 0, x.dims), "x", a.positions, a.x_step);
    a.logits = strided<T>(logits, "logits", a.positions, a.categories);
    a.log_prob = pointer<T>(merged(log_prob, 0, log_prob.dims), "log_prob", {a.positions});
    py::gil_scoped_release unlocked;
    cpu::categorical_log_prob_forward(a);
  });
}

void categorical_backward(const Tensor& grad, const Tensor& x, const Tensor& all, int64_t features, const Tensor& grad_logits) {
  const Tensor logits = positions_of(all);
  expect_features(logits, "logits");
  if (features < 1 || logits.size(0) % features) fail("features: expected a divisor of the positions");
  dispatch_float(logits, "logits", [&](auto zero) {
    using T = decltype(zero);
    cpu::CategoricalBackward<T> a;
    a.positions = logits.size(0);
    a.categories = logits.size(1);
    a.features = features;
    a.grad = per_row<T>(merged(grad, 0, grad.dims), "grad", a.positions / features, a.grad_step);
    a.x = per_row<int64_t>(merged(x, 0, x.dims), "x", a.positions, a.x_step);
    a.logits = strided<T>(logits, "logits", a.positions, a.categories);
    a.grad_logits = pointer<T>(positions_of(grad_logits), "grad_logits", {a.positions, a.categories});
    py::gil_scoped_release unlocked;
    cpu::categorical_log_prob_backward(a);
  });
}

}  // namespace

void bind_likelihoods(py::module_& m) {
  m.def("bernoulli_log_prob_forward", &bernoulli_forward, "The log-probability of Bernoulli variables, into log_prob.",
        py::arg("x"), py::arg("logits"), py::arg("log_prob"));
  m.def("bernoulli_log_prob_backward", &bernoulli_backward,
        "The gradients of bernoulli_log_prob_forward, into those that are not None.", py::arg("grad"), py::arg("x"),
        py::arg("logits"), py::arg("grad_x"), py::arg("grad_logits"));
  m.def("discretized_logistic_log_prob_forward", &logistic_forward,
        "The log-probability of discretised logistic variables, into log_prob.", py::arg("x"), py::arg("mean"),
        py::arg("log_scale"), py::arg("levels"), py::arg("log_prob"));
  m.def("discretized_logistic_log_prob_backward", &logistic_backward,
        "The gradients of discretized_logistic_log_prob_forward, into those that are not None.", py::arg("grad"), py::arg("x"),
        py::arg("mean"), py::arg("log_scale"), py::arg("levels"), py::arg("grad_x"), py::arg("grad_mean"),
        py::arg("grad_log_scale"));
  m.def("categorical_log_prob_forward", &categorical_forward,
        "The log-probability of a category at each position, into log_prob.", py::arg("x"), py::arg("logits"),
        py::arg("log_prob"));
  m.def("categorical_log_prob_backward", &categorical_backward, "The gradient of categorical_log_prob_forward for row sums.",
        py::arg("grad"), py::arg("x"), py::arg("logits"), py::arg("features"), py::arg("grad_logits"));
}

}  // namespace fastgen
