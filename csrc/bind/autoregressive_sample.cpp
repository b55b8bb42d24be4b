#include "cpu/autoregressive_sample.h"

#include "bind/bind.h"
#include "bind/caster.h"
#include "bind/conditional.h"
#include "bind/network_plan.h"

namespace py = pybind11;

namespace fastgen {
namespace {

void sample(const Tensor& noise, const Optionals& params, const Optional& context_terms, const Optional& given, int64_t known,
            const NetworkPlan& plan, int kind, int64_t size, int map, double first, double second, const Tensor& values) {
  expect_features(noise, "noise");
  const Conditional c = conditional(kind, size, map, first, second);
  const int64_t rows = noise.size(0);
  dispatch_float(noise, "noise", [&](auto zero) {
    using T = decltype(zero);
    const auto layers = plan.with<T>(params);
    const auto network = plan.network(layers);
    PerFeature per{};
    int64_t numbers = 0;
    dispatch_conditional<T>(c, [&](const auto& draw) { per = {draw.outputs(), draw.columns()}, numbers = draw.numbers; });
    cpu::AutoregressiveSample<T> a;
    a.conditional = c;
    plan.expect_autoregressive(network, per);
    a.system = read_system<T>(network, per, rows, context_terms, values, "values");
    const int64_t features = layers[0].stair.in / per.columns;
    a.system.noise = strided<T>(noise, "noise", rows, features * numbers);
    a.system.given = strided<T>(given, "given", rows, features);
    a.system.known = known;
    expect_known(known, given.has_value(), features);
    if (rows == 0) return;
    py::gil_scoped_release unlocked;
    cpu::autoregressive_sample(a);
  });
}

}  // namespace

void bind_autoregressive_sample(py::module_& m) {
  m.def("autoregressive_sample", &sample, "Samples of an autoregressive density, into values.", py::arg("noise"),
        py::arg("params"), py::arg("context_terms"), py::arg("given"), py::arg("known"), py::arg("plan"),
        py::arg("conditional"), py::arg("size"), py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("values"));
}

}  // namespace fastgen
