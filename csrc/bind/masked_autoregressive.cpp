#include "cpu/masked_autoregressive.h"

#include "bind/autoregressive.h"
#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/elementwise.h"

namespace py = pybind11;

namespace fastgen {
namespace {

constexpr int64_t kOutputs = 2;

// Where `saved` holds the network's outputs: after what masked_mlp_forward saves.
template <class T>
T* outputs_in(T* saved, const cpu::MaskedNetwork<T>& net, int64_t rows) {
  return saved ? saved + saved_values(net, rows) : nullptr;
}

template <class T>
T* read_saved(const Optional& saved, const cpu::MaskedNetwork<T>& net, int64_t rows) {
  return pointer<T>(saved, "saved", {saved_values(net, rows) + kOutputs * net.layers[0].stair.in * rows});
}

void forward(const Tensor& x, const Optionals& params, const Optional& context_terms, const Optional& log_det_in,
             const Optionals& plan, const std::vector<std::string>& activations, const std::vector<int64_t>& residuals,
             bool direct, bool divide, int kind, double first, double second, const Optional& z, const Tensor& total,
             const Optional& saved) {
  expect_features(x, "x");
  const int64_t rows = x.size(0);
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    cpu::MaskedAutoregressiveForward<T> a;
    a.pass = read_pass<T>(network_of(layers, activations.size()), x, context_terms);
    expect_autoregressive(a.pass.network, {kOutputs, 1});
    a.pass.saved = read_saved<T>(saved, a.pass.network, rows);
    a.pass.y = outputs_in(a.pass.saved, a.pass.network, rows);
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step);
    a.divide = divide;
    a.map = scale_map(kind, first, second);
    a.z = pointer<T>(z, "z", {rows, layers[0].stair.in});
    a.total = pointer<T>(total, "total", {rows});
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::masked_autoregressive_forward(a);
  });
}

void backward(const Optional& grad_z, const Optional& grad_total, const Tensor& x, const Optionals& params, const Tensor& saved,
              const Optionals& plan, const std::vector<std::string>& activations, const std::vector<int64_t>& residuals,
              bool direct, bool divide, int kind, double first, double second, bool log_prob, const Optional& grad_x,
              const Optional& grad_context, const Optionals& grad_params) {
  expect_features(x, "x");
  const int64_t rows = x.size(0);
  expect_count(grad_params.size(), params.size(), "grad_params");
  if (log_prob && grad_z) fail("grad_z: expected None with log_prob");
  dispatch_float(x, "x", [&](auto zero) {
    using T = decltype(zero);
    auto layers = read_layers<T>(params, plan, activations, residuals, direct);
    read_gradients<T>(grad_params, layers);
    cpu::MaskedAutoregressiveBackward<T> a;
    a.pass = read_backward_pass<T>(network_of(layers, activations.size()), x, grad_x, grad_context);
    expect_autoregressive(a.pass.network, {kOutputs, 1});
    T* const kept = read_saved<T>(saved, a.pass.network, rows);
    a.pass.saved = kept;
    a.y = outputs_in(kept, a.pass.network, rows);
    a.grad_z = strided<T>(grad_z, "grad_z", rows, layers[0].stair.in);
    a.grad_total = per_row<T>(grad_total, "grad_total", rows, a.grad_total_step);
    a.divide = divide;
    a.log_prob = log_prob;
    a.map = scale_map(kind, first, second);
    py::gil_scoped_release unlocked;
    cpu::masked_autoregressive_backward(a);
  });
}

}  // namespace

void bind_masked_autoregressive(py::module_& m) {
  m.def("masked_autoregressive_forward", &forward,
        "A masked network and the affine map of its outputs, into z and total; without z the log-density, into total.",
        py::arg("x"), py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("plan"),
        py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("z"), py::arg("total"), py::arg("saved"));
  m.def("masked_autoregressive_backward", &backward,
        "The gradients of masked_autoregressive_forward, into those that are not None.", py::arg("grad_z"),
        py::arg("grad_total"), py::arg("x"), py::arg("params"), py::arg("saved"), py::arg("plan"), py::arg("activations"),
        py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"), py::arg("second"),
        py::arg("log_prob"), py::arg("grad_x"), py::arg("grad_context"), py::arg("grad_params"));
}

}  // namespace fastgen
