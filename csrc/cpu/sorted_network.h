// A masked network for walks in the order of degrees: weights copied where they lie in another order, and products of
// any stretch of units with any stretch of what they see.
#pragma once

#include "cpu/unit_major.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

// The network with its weights in the order of degrees, copied where they lie in another.
template <class T>
class SortedNetwork {
 public:
  static int64_t size(const MaskedNetwork<T>& net) {
    int64_t values = 0;
    for_layers(net,
               [&](const NetworkLayer<T>& layer) { values += copied(layer.stair) ? layer.stair.in * layer.stair.out : 0; });
    return values;
  }

  // `room` has room for `size` values, `layers` for all layers and the direct one.
  SortedNetwork(const MaskedNetwork<T>& net, T* room, const T** weights) : weights_(weights) {
    int l = 0;
    for_layers(net, [&](const NetworkLayer<T>& layer) {
      weights_[l++] = copied(layer.stair) ? sort(layer, room) : layer.weight;
      if (copied(layer.stair)) room += layer.stair.in * layer.stair.out;
    });
  }

  const T* weight(int layer) const { return weights_[layer]; }

 private:
  template <class F>
  static void for_layers(const MaskedNetwork<T>& net, const F& f) {
    for (int l = 0; l < net.count; ++l) f(net.layers[l]);
    if (net.direct) f(*net.direct);
  }
  static bool copied(const Staircase& s) { return s.in_order || s.out_order; }

  static const T* sort(const NetworkLayer<T>& layer, T* to) {
    const Staircase& s = layer.stair;
#pragma omp parallel for if (s.in * s.out > kSerialWork)
    for (int64_t u = 0; u < s.out; ++u) {
      const T* row = layer.weight + (s.out_order ? s.out_order[u] : u) * s.in;
      for (int64_t k = 0; k < s.prefix[u]; ++k) to[u * s.in + k] = row[s.in_order ? s.in_order[k] : k];
    }
    return to;
  }

  const T** weights_;
};

// out[u] += sum_k W[u][k] in[k] for units [begin, end), k from `from` to where the unit sees no more, and below `to`.
template <int V, class T>
void add_sums(const Staircase& s, const T* weight, const T* in, int64_t begin, int64_t end, int64_t from, int64_t to, T* out) {
  constexpr int R = kTile<T, V>;
  for (int64_t u = begin, same; u < end; u += same) {
    const int64_t seen = least<int64_t>(s.prefix[u], to);
    same = 1;
    while (u + same < end && least<int64_t>(s.prefix[u + same], to) == seen) ++same;
    if (seen <= from) continue;
    const Tiles tiles{same, kTileRowsOf<V>};
    for (int64_t t = 0; t < tiles.count(); ++t) {
      const int64_t first = u + tiles.begin(t);
      multiply_tile<T, V>(tiles.height(t), Tile<T>{weight + first * s.in + from, s.in, 1, in + from * R, seen - from,
                                                   out + first * R, R, nullptr, true});
    }
  }
}

// to[k] += sum_o W[o][k] g[o] for inputs [begin, end), o from the first output that sees the input, at least `from`, to `to`.
template <class T>
void add_pulls(const Staircase& s, const T* weight, const T* g, int64_t begin, int64_t end, int64_t from, int64_t to, T* out) {
  constexpr int R = kTile<T>;
  for (int64_t k = begin, same; k < end; k += same) {
    const int64_t start = most<int64_t>(s.suffix[k], from);
    same = 1;
    while (k + same < end && most<int64_t>(s.suffix[k + same], from) == start) ++same;
    if (start >= to) continue;
    const Tiles tiles{same};
    for (int64_t t = 0; t < tiles.count(); ++t) {
      const int64_t first = k + tiles.begin(t);
      multiply_tile(tiles.height(t), Tile<T>{weight + start * s.in + first, 1, s.in, g + start * R, to - start, out + first * R,
                                             R, nullptr, true});
    }
  }
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
