#include "cpu/autoregressive_inverse.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"
#include "bind/network.h"
#include "cpu/autoregressive_walk.h"

namespace py = pybind11;

namespace fastgen {
namespace {

constexpr int64_t kOutputs = 2;

// Feature by feature in the order of degrees: outputs listed as the inputs are, and none that sees its own feature.
template <class T>
void expect_autoregressive(const cpu::MaskedNetwork<T>& net) {
  const cpu::Staircase &in = net.layers[0].stair, &out = net.layers[net.count - 1].stair;
  if (out.out != kOutputs * in.in)
    fail("params: expected " + std::to_string(kOutputs) + " outputs per feature, found " + std::to_string(out.out) + " for " +
         std::to_string(in.in) + " features");
  for (int64_t k = 0; k < out.out; ++k) {
    const int64_t feature = in.in_order ? in.in_order[k / kOutputs] : k / kOutputs;
    if ((out.out_order ? out.out_order[k] : k) != kOutputs * feature + k % kOutputs)
      fail("plan: expected outputs in the order of the features");
  }
  std::vector<int32_t> room(cpu::Walk::size(net));
  if (!cpu::Walk(net, room.data()).autoregressive(kOutputs))
    fail("plan: expected no output to see its own feature or a later one");
}

void forward(const Tensor& w, const Optionals& params, const Optional& context_terms, const Optional& log_det_in,
             const Optionals& plan, const std::vector<std::string>& activations, const std::vector<int64_t>& residuals,
             bool direct, bool divide, int kind, double first, double second, const Tensor& v, const Tensor& log_det) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    cpu::AutoregressiveInverseForward<T> a;
    a.network = network_of(layers, activations.size());
    expect_autoregressive(a.network);
    if (context_terms) expect_rows(*context_terms, "context_terms", dtype_of<T>(), rows, layers[0].stair.out);
    a.w = strided<T>(w, "w", rows, layers[0].stair.in);
    a.context_terms = context_terms ? context_terms->as<T>() : nullptr;
    a.ld_context = context_terms ? context_terms->step(0) : 0;
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step);
    a.rows = rows;
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.v = pointer<T>(v, "v", {rows, features});
    a.log_det = pointer<T>(log_det, "log_det", {rows});
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::autoregressive_inverse_forward(a);
  });
}

void backward(const Optional& grad_v, const Optional& grad_log_det, const Tensor& w, const Tensor& v, const Tensor& y,
              const Tensor& saved, const Optionals& params, const Optionals& plan, const std::vector<std::string>& activations,
              const std::vector<int64_t>& residuals, bool direct, bool divide, int kind, double first, double second,
              const Optional& grad_w, const Optional& grad_context, const Optionals& grad_params) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  expect_count(grad_params.size(), params.size(), "grad_params");
  dispatch_float(w, "w", [&](auto zero) {
    using T = decltype(zero);
    auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    read_gradients<T>(grad_params, layers);
    cpu::AutoregressiveInverseBackward<T> a;
    a.network = network_of(layers, activations.size());
    expect_autoregressive(a.network);
    a.grad_v = strided<T>(grad_v, "grad_v", rows, layers[0].stair.in);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step);
    a.w = strided<T>(w, "w", rows, layers[0].stair.in);
    a.v = pointer<T>(v, "v", {rows, features});
    a.y = pointer<T>(y, "y", {rows, kOutputs * features});
    a.saved = pointer<T>(saved, "saved", {saved_values(a.network, rows)});
    a.rows = rows;
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.grad_w = pointer<T>(grad_w, "grad_w", {rows, features});
    a.grad_context = pointer<T>(grad_context, "grad_context", {rows, layers[0].stair.out});
    py::gil_scoped_release unlocked;
    cpu::autoregressive_inverse_backward(a);
  });
}

}  // namespace

void bind_autoregressive_inverse(py::module_& m) {
  m.def("autoregressive_inverse_forward", &forward, "The solution of an autoregressive network, into v, and log_det.",
        py::arg("w"), py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("plan"),
        py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("v"), py::arg("log_det"));
  m.def("autoregressive_inverse_backward", &backward,
        "The gradients of autoregressive_inverse_forward, into those that are not None.", py::arg("grad_v"),
        py::arg("grad_log_det"), py::arg("w"), py::arg("v"), py::arg("y"), py::arg("saved"), py::arg("params"), py::arg("plan"),
        py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("grad_w"), py::arg("grad_context"), py::arg("grad_params"));
}

}  // namespace fastgen
