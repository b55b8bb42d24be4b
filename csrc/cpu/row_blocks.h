// What elementwise kernels with a sum per row share. Rows are cut into blocks that fit the first cache, each block is
// brought into one flat array whatever its strides, and loops over flat arrays are SIMD code even when rows are short.
#pragma once

#include <omp.h>

#include <cstdint>

#include "cpu/strided.h"
#include "scale_map.h"

namespace fastgen::cpu::FASTGEN_VARIANT {

constexpr int kBlock = 512;
// Elements a thread must have to be worth waking.
constexpr int64_t kGrain = 32768;

// Whole rows, or a piece of one row: in a contiguous matrix its elements lie one after the other.
struct Block {
  int64_t row, column;
  int rows, columns;
  int size() const { return rows * columns; }
};

// Calls f(first row, number of rows) for groups of rows that make one block, or for single rows longer than that, and leave()
// when a thread has done its own. An element is visited `visits` times.
template <class F, class Leave>
void for_row_groups(int64_t rows, int64_t columns, const F& f, int64_t visits, const Leave& leave) {
  const int64_t group = columns < kBlock ? kBlock / columns : 1, groups = (rows + group - 1) / group;
  const int64_t wanted = 1 + rows * columns * visits / kGrain, available = omp_get_max_threads();
  const int threads = static_cast<int>(wanted < available ? wanted : available);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t first = i * group, left = rows - first;
      f(first, static_cast<int>(left < group ? left : group));
    }
    leave();
  }
}

template <class F>
void for_row_groups(int64_t rows, int64_t columns, const F& f, int64_t visits = 1) {
  for_row_groups(rows, columns, f, visits, [] {});
}

// Calls f(block) for the blocks of a group of rows, from left to right.
template <class F>
void for_blocks(int64_t row, int rows, int64_t columns, const F& f) {
  for (int64_t column = 0; column < columns; column += kBlock) {
    const int64_t left = columns - column;
    f(Block{row, column, rows, static_cast<int>(left < kBlock ? left : kBlock)});
  }
}

template <class T>
inline void copy(const T* __restrict from, int64_t step, int n, T* __restrict to) {
  if (step == 1)
    for (int i = 0; i < n; ++i) to[i] = from[i];
  else if (step == 2)  // the views of a network's two outputs
    for (int i = 0; i < n; ++i) to[i] = from[2 * i];
  else
    for (int i = 0; i < n; ++i) to[i] = from[i * step];
}

template <class T>
inline void fill(T* __restrict to, int n, T value) {
  for (int i = 0; i < n; ++i) to[i] = value;
}

// A block's elements one after the other: in place where they lie so, else in a copy; zeros for a null matrix.
template <class T>
class Flat {
 public:
  Flat(const Strided<T>& m, const Block& b) {
    const T* from = m.data + b.row * m.row + b.column * m.column;
    const bool in_place = (m.column == 1 || b.columns == 1) && (m.row == b.columns || b.rows == 1);
    data_ = m.data && in_place ? from : copy_;
    if (!m.data)
      fill(copy_, b.size(), T(0));
    else if (!in_place && m.row == b.columns * m.column)
      copy(from, m.column, b.size(), copy_);
    else if (!in_place)
      for (int r = 0; r < b.rows; ++r) copy(from + r * m.row, m.column, b.columns, copy_ + r * b.columns);
  }
  Flat(const Flat&) = delete;
  Flat& operator=(const Flat&) = delete;
  operator const T*() const { return data_; }

 private:
  alignas(64) T copy_[kBlock];
  const T* data_;
};

// One value per row of the block, times `factor`, repeated along it; zeros for a null vector.
template <class T>
inline void repeat(const T* values, int64_t step, const Block& b, T factor, T* to) {
  for (int r = 0; r < b.rows; ++r) fill(to + r * b.columns, b.columns, values ? factor * values[(b.row + r) * step] : T(0));
}

// In 16 partial sums, whatever the instruction set.
template <class T>
inline T sum(const T* v, int n) {
  T part[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; ++l) part[l] += v[i + l];
  for (int l = 0; i + l < n; ++l) part[l] += v[i + l];
  for (int width = 8; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) part[l] += part[l + width];
  return part[0];
}

// Adds each row's sum over the block to that row's total.
template <class T>
inline void add_row_sums(const T* values, const Block& b, double* totals) {
  for (int r = 0; r < b.rows; ++r) totals[r] += static_cast<double>(sum(values + r * b.columns, b.columns));
}

// s = map(raw), and ds/draw where `derivative` is not null.
template <class T>
inline void map_log_scale(const ScaleMap& map, int n, const T* __restrict raw, T* __restrict s,
                          T* __restrict derivative = nullptr) {
  dispatch_scale_map<T>(map, [=](auto scale) {
    if (!derivative)
      for (int i = 0; i < n; ++i) s[i] = scale(raw[i]).value;
    else
      for (int i = 0; i < n; ++i) {
        const LogScale<T> v = scale(raw[i]);
        s[i] = v.value;
        derivative[i] = v.derivative;
      }
  });
}

}  // namespace fastgen::cpu::FASTGEN_VARIANT
