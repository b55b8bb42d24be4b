// The items of a coupling layer: which of their entries are transformed, and where each lies in every operand.
#pragma once

#include <vector>

#include "bind/arguments.h"
#include "cpu/coupling.h"

namespace fastgen {

class CouplingLayout {
 public:
  // x: (B, D) or (B, C, H, W), at least one entry an item. places: for each feature or channel its rank among the transformed
  // ones, or -1; without it a checkerboard of the sites where (h + w) % 2 == parity. Raises for anything else.
  CouplingLayout(const Tensor& x, const Optional& places, int64_t parity);

  int64_t rows() const { return rows_; }

  // Checks an operand, of x's shape or, where that is allowed, compact.
  void add(cpu::CouplingOperandName name, const Optional& t, const char* text, DType dtype, bool compact_allowed = false);

  // After all operands are added. What the item and its operands point to lives as long as this.
  cpu::CouplingItem item();
  template <class T>
  cpu::CouplingOperand<T> operand(cpu::CouplingOperandName name, const Optional& t) const {
    if (!t) return {};
    const Axes& axes = axes_[name];
    return {t->as<T>(), t->step(0), channels_inner_ ? axes.channel : axes.width, axes.compact, offsets_[name].data()};
  }

  // A result of x's shape, in the order of x's memory without gaps; null for None.
  template <class T>
  T* result(const Optional& t, const char* text) const {
    if (!t) return nullptr;
    expect_on(Device::cpu, *t, text, dtype_of<T>());
    expect_dense(*t, text, channels_);
    return t->as<T>();
  }

  // The gradient of an operand, as wide as that.
  template <class T>
  cpu::CouplingGradient<T> gradient(cpu::CouplingOperandName name, const Optional& t, const char* text) const {
    if (!t) return {};
    expect_on(Device::cpu, *t, text, dtype_of<T>());
    const bool compact = axes_[name].compact;
    expect_dense(*t, text, compact ? transformed_channels_ : channels_);
    return {t->as<T>(), compact};
  }

 private:
  // The strides of an operand's items.
  struct Axes {
    bool given = false, compact = false;
    int64_t channel = 0, height = 0, width = 0;
  };
  struct Entry {
    int64_t channel, h, w;
  };

  void expect_ranks(const Tensor& places);
  void expect_size(const Tensor& t, const char* text, int64_t channels) const;
  void expect_dense(const Tensor& t, const char* text, int64_t channels) const;

  bool chosen(const Entry& e) const { return places_ ? places_[e.channel] >= 0 : (e.h + e.w) % 2 == parity_; }
  int64_t offset(const Axes& axes, const Entry& e) const;
  bool dense(const Axes& axes, int64_t channels) const;
  // Calls f(entry, n) for lines of n entries, which from the first on lie one after the other in the results' memory.
  template <class F>
  void for_lines(const F& f) const;
  Entry next(Entry e, int64_t n) const;
  bool find_runs();
  bool continues(const cpu::CouplingRun& run, const cpu::CouplingRun& next) const;
  void find_entries();

  bool image_, channels_inner_;
  int64_t rows_ = 0, channels_ = 1, height_ = 1, width_ = 1, parity_;
  const int32_t* places_ = nullptr;
  int64_t transformed_channels_ = 0;
  Axes axes_[cpu::kCouplingOperands];
  std::vector<cpu::CouplingRun> runs_;
  std::vector<uint8_t> chosen_;
  std::vector<int64_t> ranks_, index_, offsets_[cpu::kCouplingOperands];
};

}  // namespace fastgen
