// The univariate maps that draw, as one: on a device a switch at every feature costs less than a copy of the walk for each.
#pragma once

#include "conditionals.h"

namespace fastgen::cuda {

template <class T>
class AnyConditional {
 public:
  static constexpr bool has_log_derivative = false;
  int32_t numbers;
  bool one_hot;

  AnyConditional() = default;
  explicit AnyConditional(const Conditional& conditional) : conditional_(conditional) {
    dispatch_conditional<T>(conditional, [&](const auto& map) {
      numbers = map.numbers;
      one_hot = map.one_hot;
      outputs_ = static_cast<int32_t>(map.outputs());
      columns_ = static_cast<int32_t>(map.columns());
    });
  }

  FASTGEN_HD int outputs() const { return outputs_; }
  FASTGEN_HD int columns() const { return columns_; }

  template <int N>
  FASTGEN_HD_INLINE void apply(T* outputs, const T* noise, int64_t step, T* value, T* log_derivative) const {
    dispatch_conditional<T>(conditional_,
                            [&](const auto& map) { map.template apply<N>(outputs, noise, step, value, log_derivative); });
  }

 private:
  Conditional conditional_;
  int32_t outputs_, columns_;
};

}  // namespace fastgen::cuda
