#pragma once

#include <cstdint>

#include "cpu/variant.h"
#include "scale_map.h"

namespace fastgen::cpu {

// What is read at an item's entries.
enum CouplingOperandName { kCouplingX, kCouplingShift, kCouplingLogScale, kCouplingGradY, kCouplingOperands };

// Consecutive entries of an item, all transformed or none, which lie at equal steps in every operand.
struct CouplingRun {
  int64_t start, count;
  int64_t rank;  // how many transformed entries come before
  bool chosen;
  int64_t at[kCouplingOperands];  // where each operand's first entry lies in its item
};

// A vector or an image, its entries in the order of the results' memory. Long runs are walked one by one; where they are
// short, run_count is 0 and the arrays tell each entry's part.
struct CouplingItem {
  int64_t size, transformed;
  const CouplingRun* runs;
  int64_t run_count;
  const uint8_t* chosen;  // by entry
  const int64_t* rank;    // by entry, and one more: how many transformed entries come before
  const int64_t* index;   // by rank: the transformed entries
};

// One operand of all items, at any strides. Null data: not given.
template <class T>
struct CouplingOperand {
  const T* data = nullptr;
  int64_t row = 0, step = 0;  // from one item to the next, and from one entry of a run to the next
  bool compact = false;       // has the transformed entries only
  // Where entries are told one by one: where they lie in their item, by rank of a compact operand; null: in order without gaps.
  const int64_t* offset = nullptr;
};

// The gradient of shift or log_scale: of every entry, or compact, of the transformed ones only. Null data: not wanted.
template <class T>
struct CouplingGradient {
  T* data = nullptr;
  bool compact = false;
};

template <class T>
struct CouplingForward {
  CouplingItem item;
  CouplingOperand<T> x, shift, log_scale;
  bool affine;          // else additive: log_scale is not read
  const T* log_det_in;  // may be null
  int64_t log_det_step;
  int64_t rows;
  bool inverse;
  ScaleMap map;
  T* y;
  T* log_det;
};

template <class T>
struct CouplingBackward {
  CouplingItem item;
  CouplingOperand<T> grad_y;  // null: nothing flows from y
  const T* grad_log_det;      // null: nothing flows from log_det
  int64_t grad_log_det_step;
  CouplingOperand<T> x, shift, log_scale;
  bool affine;
  int64_t rows;
  bool inverse;
  ScaleMap map;
  T* grad_x;  // may be null: not wanted
  CouplingGradient<T> grad_shift, grad_log_scale;
};

}  // namespace fastgen::cpu

FASTGEN_DECLARE_KERNEL(coupling_forward, CouplingForward)
FASTGEN_DECLARE_KERNEL(coupling_backward, CouplingBackward)
