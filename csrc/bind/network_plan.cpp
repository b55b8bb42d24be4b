#include "bind/network_plan.h"

#include "bind/bind.h"
#include "bind/caster.h"

namespace py = pybind11;

namespace fastgen {

NetworkPlan::NetworkPlan(const Optionals& plan, const std::vector<std::string>& activations,
                         const std::vector<int64_t>& residuals, bool direct)
    : layers_(read_layer_plans(plan, activations, residuals, direct)), direct_(direct) {
  for (LayerPlan& layer : layers_) {
    cpu::Staircase& s = layer.stair;
    s = {own(s.in_order, s.in), own(s.out_order, s.out), own(s.prefix, s.out), own(s.suffix, s.in), s.in, s.out};
  }
}

const int32_t* NetworkPlan::own(const int32_t* values, int64_t n) {
  if (!values) return nullptr;
  memory_.emplace_back(values, values + n);
  return memory_.back().data();
}

void bind_network_plan(py::module_& m) {
  py::class_<NetworkPlan>(m, "NetworkPlan", "A masked network but for its parameters, checked once.")
      .def(py::init<const Optionals&, const std::vector<std::string>&, const std::vector<int64_t>&, bool>(), py::arg("plan"),
           py::arg("activations"), py::arg("residuals"), py::arg("direct"));
}

}  // namespace fastgen
