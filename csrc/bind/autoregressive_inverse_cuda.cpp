#include "cuda/autoregressive_inverse.h"

#include "bind/autoregressive_cuda.h"
#include "bind/bind.h"
#include "bind/caster.h"

namespace py = pybind11;

namespace fastgen {
namespace {

constexpr int64_t kOutputs = 2;

template <class T, class W>
int64_t place_backward(cuda::Network<T, W>& net) {
  int32_t units = 0;
  for (int l = 0; l < net.count; ++l) {
    net.layers[l].at = units;
    units += net.layers[l].out;
  }
  return units;
}

void forward(const Tensor& w, const Optionals& params, const Optional& context_terms, const Optional& log_det_in,
             const Optionals& plan, const Tensor& walk, const std::vector<std::string>& activations,
             const std::vector<int64_t>& residuals, bool direct, bool divide, int kind, double first, double second, bool tf32,
             const Tensor& v, const Tensor& log_det, const py::function& allocate, int64_t stream) {
  expect_features(w, "w");
  const int64_t rows = w.size(0);
  dispatch_types(w, "w", params, tf32, [&](auto zero, auto weight) {
    using T = decltype(zero);
    using W = decltype(weight);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct, kDevice, stored_as<W>());
    cuda::AutoregressiveInverseForward<T, W> a{};
    read_system(layers, activations.size(), walk, {kOutputs, 1}, rows, context_terms, v, "v", a);
    a.noise = strided<T>(w, "w", rows, a.network.features, kDevice);
    a.map = {scale_map(kind, first, second), divide};
    a.log_det_in = per_row<T>(log_det_in, "log_det_in", rows, a.log_det_step, kDevice);
    a.log_det = pointer<T>(log_det, "log_det", {rows}, kDevice);
    run(a, allocate, stream);
  });
}

void backward(const Optional& grad_v, const Optional& grad_log_det, const Tensor& w, const Tensor& v, const Tensor& y,
              const Tensor& saved, const Optionals& params, const Optionals& plan, const Tensor& walk,
              const std::vector<std::string>& activations, const std::vector<int64_t>& residuals, bool direct, bool divide,
              int kind, double first, double second, bool tf32, const Tensor& grad_w, const Tensor& deltas,
              const py::function& allocate, int64_t stream) {
  expect_features(w, "w");
  const int64_t rows = w.size(0), features = w.size(1);
  dispatch_types(w, "w", params, tf32, [&](auto zero, auto weight) {
    using T = decltype(zero);
    using W = decltype(weight);
    const auto layers = read_layers<T>(params, plan, activations, residuals, direct, kDevice, stored_as<W>());
    cuda::AutoregressiveInverseBackward<T, W> a;
    cuda::Network<T, W>& net = a.network;
    describe(layers, activations.size(), walk, {kOutputs, 1}, net);
    a.units = place_backward(net);
    a.grad_v = strided<T>(grad_v, "grad_v", rows, net.features, kDevice);
    a.grad_log_det = per_row<T>(grad_log_det, "grad_log_det", rows, a.grad_log_det_step, kDevice);
    a.w = strided<T>(w, "w", rows, net.features, kDevice);
    a.v = pointer<T>(v, "v", {rows, features}, kDevice);
    a.y = pointer<T>(y, "y", {rows, kOutputs * features}, kDevice);
    a.rows = rows;
    a.map = {scale_map(kind, first, second), divide};
    a.grad_w = pointer<T>(grad_w, "grad_w", {rows, features}, kDevice);
    // Layer after layer, as masked_mlp saves.
    const T* from = pointer<T>(saved, "saved", {rows * (a.units - kOutputs * features)}, kDevice);
    T* to = pointer<T>(deltas, "deltas", {rows * a.units}, kDevice);
    for (int l = 0; l < net.count; ++l) {
      net.layers[l].saved = from + rows * net.layers[l].at;
      net.layers[l].delta = to + rows * net.layers[l].at;
    }
    run(a, allocate, stream);
  });
}

}  // namespace

void bind_autoregressive_inverse_cuda(py::module_& m) {
  m.def("autoregressive_inverse_cuda_forward", &forward, "autoregressive_inverse_forward on CUDA tensors.", py::arg("w"),
        py::arg("params"), py::arg("context_terms"), py::arg("log_det_in"), py::arg("plan"), py::arg("walk"),
        py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"), py::arg("first"),
        py::arg("second"), py::arg("tf32"), py::arg("v"), py::arg("log_det"), py::arg("allocate"), py::arg("stream"));
  m.def("autoregressive_inverse_cuda_backward", &backward,
        "The gradients of w, into grad_w, and of every layer's sums, into deltas, layer after layer.", py::arg("grad_v"),
        py::arg("grad_log_det"), py::arg("w"), py::arg("v"), py::arg("y"), py::arg("saved"), py::arg("params"), py::arg("plan"),
        py::arg("walk"), py::arg("activations"), py::arg("residuals"), py::arg("direct"), py::arg("divide"), py::arg("kind"),
        py::arg("first"), py::arg("second"), py::arg("tf32"), py::arg("grad_w"), py::arg("deltas"), py::arg("allocate"),
        py::arg("stream"));
}

}  // namespace fastgen
