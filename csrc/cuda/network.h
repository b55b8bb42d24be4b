// A masked network and the order it is walked in, as kernels take them: by value, pointers into the device's memory.
#pragma once

#include <cstdint>

#include "activation.h"
#include "cuda/block.h"

namespace fastgen::cuda {

// The direct one among them. All of them travel as parameters of the kernel.
constexpr int kMaxLayers = 64;
// Features walked as one block, at most.
constexpr int kWalkBlock = 16;
// Outputs that a block of several features has, at most.
constexpr int kBlockOutputs = 128;

// W: what weights are in memory, see weights.h.
template <class T, class W = T>
struct Layer {
  const W* weight;
  const T* bias;  // may be null
  // The plan, see cpu/staircase.h.
  const int32_t *in_order, *out_order, *prefix, *suffix;
  int32_t in, out;
  Activation activation;
  int32_t residual;  // the earlier layer whose sums are added; -1: none
  bool is_source;    // whether a later layer adds this one's sums
  int32_t at;        // where its units begin in the state of a tile
  int32_t sums_at;   // likewise their sums, apart from their outputs where they must outlive these
  const T* saved;    // backward: (rows, out), the outputs or sums that derivatives are taken from
  T* delta;          // backward: (rows, out), receives the gradients of the sums

  FASTGEN_DEVICE int unit(int sorted) const { return out_order ? read(out_order + sorted) : sorted; }
  FASTGEN_DEVICE int input(int sorted) const { return in_order ? read(in_order + sorted) : sorted; }
};

template <class T, class W = T>
struct Network {
  Layer<T, W> layers[kMaxLayers];  // the direct one, where there is one, after the others
  int32_t count;                   // without the direct one
  bool direct;
  int32_t features;
  // Per layer and for -1, 0, ..., features known features: how many of its units are final.
  const int32_t* ready_counts;
  // The features that each block of the walk ends before.
  const int32_t* ends;
  int32_t blocks;

  FASTGEN_DEVICE int ready(int l, int known) const { return read(ready_counts + l * (features + 2) + known + 1); }
};

}  // namespace fastgen::cuda
