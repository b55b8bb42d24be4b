#include "cpu/autoregressive_inverse.h"

#include <memory>

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"
#include "bind/network_plan.h"

namespace py = pybind11;

namespace fastgen {
namespace {

constexpr int64_t kOutputs = 2;

void forward(const Tensor& w, const Optionals& params, const Optional& context_terms, const Optional& log_det_in,
             const NetworkPlan& plan, bool divide, int kind, double first, double second, const Tensor& v,
             const Tensor& log_det) {
  expect_features(w, "w");
  const int64_t rows = w.size(0);
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = plan.with<T>(params);
    const auto network = plan.network(layers);
    plan.expect_autoregressive(network, {kOutputs, 1});
    cpu::AutoregressiveInverseForward<T> a;
    a.system = read_system<T>(network, {kOutputs, 1}, rows, context_terms, v, "v");
    a.system.noise = strided<T>(w, "w", rows, layers[0].stair.in);
    a.system.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.system.log_det_step);
    a.system.log_det = pointer<T>(log_det, "log_det", {rows});
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::autoregressive_inverse_forward(a);
  });
}

void backward(const Optional& grad_v, const Optional& grad_log_det, const Tensor& w, const Tensor& v, const Optionals& params,
              const Optional& context_terms, const NetworkPlan& plan, bool divide, int kind, double first, double second,
              const Optional& grad_w, const Optional& grad_context, const Optionals& grad_params) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  expect_count(grad_params.size(), params.size(), "grad_params");
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    auto layers = plan.with<T>(params);
    read_gradients<T>(grad_params, layers);
    cpu::AutoregressiveInverseBackward<T> a;
    a.network = plan.network(layers);
    plan.expect_autoregressive(a.network, {kOutputs, 1});
    a.grad_v = strided<T>(grad_v, "grad_v", rows, layers[0].stair.in);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step);
    a.w = strided<T>(w, "w", rows, layers[0].stair.in);
    a.v = pointer<T>(v, "v", {rows, features});
    a.rows = rows;
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.grad_w = pointer<T>(grad_w, "grad_w", {rows, features});
    a.grad_context = pointer<T>(grad_context, "grad_context", {rows, layers[0].stair.out});
    // The network once more, at the solution.
    cpu::MaskedMlpForward<T> pass = read_pass<T>(a.network, v, context_terms);
    const int64_t units = saved_values(a.network, rows);
    const std::unique_ptr<T[]> room(new T[units + kOutputs * features * rows]);
    a.saved = pass.saved = room.get();
    a.y = pass.y = room.get() + units;
    py::gil_scoped_release unlocked;
    if (rows > 0) cpu::masked_mlp_forward(pass);
    cpu::autoregressive_inverse_backward(a);
  });
}

}  // namespace

void bind_autoregressive_inverse(py::module_& m) {
  m.def("autoregressive_inverse_forward", &forward, "The solution of an autoregressive network, into v, and log_det.",
        py::arg("w"), py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("plan"), py::arg("divide"),
        py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("v"), py::arg("log_det"));
  m.def("autoregressive_inverse_backward", &backward,
        "The gradients of autoregressive_inverse_forward, into those that are not None.", py::arg("grad_v"),
        py::arg("grad_log_det"), py::arg("w"), py::arg("v"), py::arg("params"), py::arg("context_terms"), py::arg("plan"),
        py::arg("divide"), py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("grad_w"), py::arg("grad_context"),
        py::arg("grad_params"));
}

}  // namespace fastgen
