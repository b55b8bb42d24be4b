// The order in which a masked autoregressive network is solved: which of its units are final once i features are known.
//
// Units are sorted by degree, so those that become final together lie side by side: a step of the walk is one feature, and
// `ready(l, i)` counts the units of layer l that see none but the first i features. Each feature has so many columns of the
// network's input, which lie side by side too.
#pragma once

#include <cstdint>

#include "cpu/masked_mlp.h"

namespace fastgen::cpu {
namespace {

class Walk {
 public:
  // Values of int32 that the constructor fills: the order of the features, a step for every unit, the counts of every layer.
  template <class T>
  static int64_t size(const MaskedNetwork<T>& net) {
    int64_t n = net.layers[0].stair.in;
    for (int l = 0; l < net.count; ++l) n += net.layers[l].stair.out + net.layers[0].stair.in + 2;
    return n;
  }

  template <class T>
  Walk(const MaskedNetwork<T>& net, int32_t* room, int64_t columns = 1)
      : columns_(columns),
        features_(net.layers[0].stair.in / columns),
        last_(net.count - 1),
        order_(net.layers[0].stair.in_order ? room : nullptr),
        counts_(room + features_) {
    for (int64_t i = 0; order_ && i < features_; ++i)
      room[i] = net.layers[0].stair.in_order[columns * i] / static_cast<int32_t>(columns);
    int32_t* counts = room + features_;
    int32_t *const all = counts + net.count * (features_ + 2), *steps = all;
    for (int l = 0; l < net.count; ++l, counts += features_ + 2) {
      const Staircase& s = net.layers[l].stair;
      const int32_t* const before = l ? steps : nullptr;
      if (l) steps += net.layers[l - 1].stair.out;
      for (int64_t u = 0; u < s.out; ++u) steps[u] = seen_step(s.prefix[u], before);
      if (net.layers[l].residual >= 0) {
        const int32_t* source = all;
        for (int k = 0; k < net.layers[l].residual; ++k) source += net.layers[k].stair.out;
        for (int64_t u = 0; u < s.out; ++u) wait_for(steps[u], source[u]);
      }
      if (l == last_ && net.direct)
        for (int64_t u = 0; u < s.out; ++u) wait_for(steps[u], seen_step(net.direct->stair.prefix[u], nullptr));
      counts[0] = 0;
      for (int64_t i = 0, u = 0; i <= features_; ++i) {
        while (u < s.out && steps[u] <= i) ++u;
        counts[i + 1] = static_cast<int32_t>(u);
      }
    }
  }

  int64_t features() const { return features_; }

  // Sorted feature -> feature; null when they are in order as they stand.
  const int32_t* order() const { return order_; }
  int64_t feature(int64_t i) const { return order_ ? order_[i] : i; }

  // Units of layer l that are final once i features are known; none for i = -1.
  int64_t ready(int l, int64_t i) const { return counts_[l * (features_ + 2) + i + 1]; }

  // Whether no output sees its own feature or a later one, with so many outputs per feature.
  bool autoregressive(int64_t outputs) const {
    for (int64_t i = 0; i < features_; ++i)
      if (ready(last_, i) < outputs * (i + 1)) return false;
    return true;
  }

 private:
  // When the first `seen` inputs are final: the features' columns, or units with these steps, which never fall.
  int32_t seen_step(int32_t seen, const int32_t* before) const {
    if (!before) return columns_ == 1 ? seen : static_cast<int32_t>((seen + columns_ - 1) / columns_);
    return seen ? before[seen - 1] : 0;
  }
  static void wait_for(int32_t& step, int32_t other) { step = step < other ? other : step; }

  int64_t columns_, features_;
  int last_;
  const int32_t *order_, *counts_;
};

}  // namespace
}  // namespace fastgen::cpu
