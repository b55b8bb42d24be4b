#include "bind/network.h"

#include <algorithm>

#include "bind/plan.h"

namespace fastgen {
namespace {

const Tensor& present(const Optional& t, const std::string& name) {
  if (!t) throw TypeError(name + ": expected a tensor, found None");
  return *t;
}

bool same_order(const int32_t* a, const int32_t* b, int64_t n) {
  if (!a || !b) return a == b;
  return std::equal(a, a + n, b);
}

// Layers that share units list them in one order: the kernels keep units sorted from layer to layer.
void expect_one_order(const std::vector<LayerPlan>& layers, size_t count) {
  const char* message = "plan: expected the same order of the units that layers share";
  for (size_t l = 0; l < count; ++l) {
    const cpu::Staircase& s = layers[l].stair;
    if (l > 0 && !same_order(s.in_order, layers[l - 1].stair.out_order, s.in)) fail(message);
    if (layers[l].residual >= 0 && !same_order(s.out_order, layers[layers[l].residual].stair.out_order, s.out)) fail(message);
  }
  if (layers.size() == count) return;
  const cpu::Staircase &direct = layers[count].stair, &first = layers[0].stair, &last = layers[count - 1].stair;
  if (!same_order(direct.in_order, first.in_order, first.in) || !same_order(direct.out_order, last.out_order, last.out))
    fail(message);
}

}  // namespace

void expect_count(size_t found, size_t expected, const char* name) {
  if (found != expected)
    fail(std::string(name) + ": expected " + std::to_string(expected) + " entries, found " + std::to_string(found));
}

std::vector<LayerPlan> read_layer_plans(const Optionals& plan, const std::vector<std::string>& activations,
                                        const std::vector<int64_t>& residuals, bool direct, Device device) {
  const size_t count = activations.size();
  if (count == 0) fail("activations: expected at least one layer, found none");
  expect_count(residuals.size(), count, "residuals");
  expect_count(plan.size(), 4 * (count + direct), "plan");
  std::vector<LayerPlan> layers(count + direct);
  for (size_t l = 0; l < layers.size(); ++l) {
    const Tensor &prefix = present(plan[4 * l + 2], "prefix"), &suffix = present(plan[4 * l + 3], "suffix");
    const int64_t in = suffix.dims == 1 ? suffix.size(0) : 0, out = prefix.dims == 1 ? prefix.size(0) : 0;
    LayerPlan& layer = layers[l];
    layer.stair = read_plan(plan[4 * l], plan[4 * l + 1], prefix, suffix, in, out, device);
    layer.activation = l < count ? read_activation(activations[l]) : Activation::identity;
    layer.residual = l < count ? static_cast<int>(residuals[l]) : -1;
    const int64_t expected = l == 0 || l == count ? layers[0].stair.in : layers[l - 1].stair.out;
    if (in != expected)
      fail("plan: expected " + std::to_string(expected) + " inputs of layer " + std::to_string(l) + ", found " +
           std::to_string(in));
    if (l == count && out != layers[count - 1].stair.out) fail("plan: expected as many direct outputs as the last layer has");
    if (l < count && residuals[l] != -1) {
      if (residuals[l] < 0 || residuals[l] >= static_cast<int64_t>(l) || layers[residuals[l]].stair.out != out)
        fail("residuals: expected earlier layers of the same width, or -1");
    }
  }
  if (device == Device::cpu) expect_one_order(layers, count);
  if (layers[count - 1].activation != Activation::identity) fail("activations: expected identity in the last layer");
  return layers;
}

template <class T>
std::vector<cpu::NetworkLayer<T>> with_parameters(const std::vector<LayerPlan>& plans, bool direct, const Optionals& params,
                                                  Device device, DType weights) {
  expect_count(params.size(), 2 * plans.size() - direct, "params");
  std::vector<cpu::NetworkLayer<T>> layers(plans.size());
  for (size_t l = 0; l < plans.size(); ++l) {
    cpu::NetworkLayer<T>& layer = layers[l];
    layer = {};
    layer.stair = plans[l].stair;
    layer.activation = plans[l].activation;
    layer.residual = plans[l].residual;
    const std::string name = "params[" + std::to_string(2 * l) + "]";
    const Tensor& weight = present(params[2 * l], name);
    expect_on(device, weight, name.c_str(), weights);
    expect_shape(weight, name.c_str(), {layer.stair.out, layer.stair.in});
    expect_contiguous(weight, name.c_str());
    layer.weight = weight.as<T>();
    layer.bias = 2 * l + 1 < params.size() ? pointer<T>(params[2 * l + 1], "bias", {layer.stair.out}, device) : nullptr;
  }
  return layers;
}

template std::vector<cpu::NetworkLayer<float>> with_parameters<float>(const std::vector<LayerPlan>&, bool, const Optionals&,
                                                                      Device, DType);
template std::vector<cpu::NetworkLayer<double>> with_parameters<double>(const std::vector<LayerPlan>&, bool, const Optionals&,
                                                                        Device, DType);

}  // namespace fastgen
