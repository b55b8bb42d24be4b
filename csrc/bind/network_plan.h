// A masked network but for its parameters, checked once and kept between calls.
#pragma once

#include <string>
#include <vector>

#include "bind/autoregressive.h"

namespace fastgen {

class NetworkPlan {
 public:
  NetworkPlan(const Optionals& plan, const std::vector<std::string>& activations, const std::vector<int64_t>& residuals,
              bool direct);

  template <class T>
  std::vector<cpu::NetworkLayer<T>> with(const Optionals& params) const {
    return with_parameters<T>(layers_, direct_, params);
  }

  // Of `layers` as `with` made them.
  template <class T>
  cpu::MaskedNetwork<T> network(const std::vector<cpu::NetworkLayer<T>>& layers) const {
    return network_of(layers, layers.size() - direct_);
  }

  int64_t outputs() const { return layers_[layers_.size() - direct_ - 1].stair.out; }

  // The same one for any parameters: what passed once is not looked at again.
  template <class T>
  void expect_autoregressive(const cpu::MaskedNetwork<T>& network, PerFeature per) const {
    if (passed_.outputs == per.outputs && passed_.columns == per.columns) return;
    fastgen::expect_autoregressive(network, per);
    passed_ = per;
  }

 private:
  const int32_t* own(const int32_t* values, int64_t n);

  std::vector<LayerPlan> layers_;
  bool direct_;
  // What kernels walk: the tensors that it came from may change.
  std::vector<std::vector<int32_t>> memory_;
  mutable PerFeature passed_{};
};

}  // namespace fastgen
