#include "cpu/coupling.h"

#include "cpu/affine_map.h"
#include "cpu/row_blocks.h"
#include "cpu/stream.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// A block of entries. Either a piece of one run, `done` entries into it, of several rows: a line for each of them. Or, without
// a run, all entries of several rows, of both kinds, as one line.
struct Span : Block {
  const CouplingRun* run;
  int64_t done;
  int lines() const { return run ? rows : 1; }
  Block line(int i) const { return run ? Block{row + i, column, 1, columns} : static_cast<const Block&>(*this); }
};

template <class F>
void for_spans(const CouplingItem& item, int64_t row, int rows, const F& f) {
  if (item.run_count == 0) return for_blocks(row, rows, item.size, [&](const Block& b) { f(Span{b, nullptr, 0}); });
  for (const CouplingRun* run = item.runs; run != item.runs + item.run_count; ++run)
    for (int64_t done = 0; done < run->count; done += kBlock) {
      const int64_t left = run->count - done;
      f(Span{Block{row, run->start + done, rows, static_cast<int>(left < kBlock ? left : kBlock)}, run, done});
    }
}

// Transformed entries to their places among the others, which become 0.
template <class T>
void spread(const CouplingItem& item, const CouplingOperand<T>& o, const Block& b, T* to) {
  fill(to, b.size(), T(0));
  for (int r = 0; r < b.rows; ++r, to += b.columns) {
    const T* from = o.data + (b.row + r) * o.row;
    for (int64_t k = item.rank[b.column]; k < item.rank[b.column + b.columns]; ++k)
      to[item.index[k] - b.column] = from[o.offset[k]];
  }
}

template <class T>
void gather(const CouplingOperand<T>& o, const Block& b, T* to) {
  for (int r = 0; r < b.rows; ++r, to += b.columns)
    for (int i = 0; i < b.columns; ++i) to[i] = o.data[(b.row + r) * o.row + o.offset[b.column + i]];
}

// The lines of a span as an operand has them: in place where their entries lie one after the other, else copied; zeros where
// the operand is not given.
template <class T>
class Lines {
 public:
  Lines(const CouplingItem& item, const CouplingOperand<T>& o, CouplingOperandName name, const Span& s)
      : data_(copy_), step_(s.columns) {
    if (!o.data) {
      fill(copy_, s.size(), T(0));
    } else if (s.run) {
      const T* from = o.data + s.row * o.row + s.run->at[name] + s.done * o.step;
      if (o.step == 1) {
        data_ = from;
        step_ = o.row;
      } else {
        for (int r = 0; r < s.rows; ++r) copy(from + r * o.row, o.step, s.columns, copy_ + r * s.columns);
      }
    } else if (o.compact) {
      spread(item, o, s, copy_);
    } else if (o.offset) {
      gather(o, s, copy_);
    } else {
      const T* from = o.data + s.row * o.row + s.column;
      if (o.row == s.columns || s.rows == 1)
        data_ = from;
      else
        for (int r = 0; r < s.rows; ++r) copy<T>(from + r * o.row, 1, s.columns, copy_ + r * s.columns);
    }
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;
  const T* operator[](int line) const { return data_ + line * step_; }

 private:
  alignas(64) T copy_[kBlock];
  const T* data_;
  int64_t step_;
};

// The lines of a span of a result: computed in their place or, to be streamed there or packed, beside it.
template <class T>
class Result {
 public:
  Result(T* place, int64_t row, bool beside, const Span& s)
      : place_(place), row_(row), data_(beside ? room_ : place), step_(beside ? s.columns : row) {}
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;

  // Null: not wanted.
  T* operator[](int line) { return place_ ? data_ + line * step_ : nullptr; }
  T* place() const { return place_; }
  void stream_to_place(int line, int n) const {
    if (place_ && data_ != place_) stream<T>(data_ + line * step_, n, place_ + line * row_);
  }

 private:
  alignas(64) T room_[kBlock];
  T* place_;
  int64_t row_;
  T* data_;
  int64_t step_;
};

// Which entries of a span of both kinds are transformed: one flag each, also where a block holds several rows.
class Chosen {
 public:
  explicit Chosen(const CouplingItem& item) : flags_(item.chosen) {
    if (item.run_count > 0 || item.size >= kBlock) return;
    for (int i = 0, j = 0; i < kBlock; ++i, j = j + 1 < item.size ? j + 1 : 0) repeated_[i] = item.chosen[j];
    flags_ = repeated_;
  }
  Chosen(const Chosen&) = delete;
  Chosen& operator=(const Chosen&) = delete;

  // Keeps v where an entry is transformed; elsewhere it becomes `other`, or 0 for null.
  template <class T>
  void keep(const Span& s, const T* __restrict other, T* __restrict v) const {
    const uint8_t* __restrict flags = flags_ + s.column;
    if (other)
      for (int i = 0; i < s.size(); ++i) v[i] = flags[i] ? v[i] : other[i];
    else
      for (int i = 0; i < s.size(); ++i) v[i] = flags[i] ? v[i] : T(0);
  }

 private:
  const uint8_t* flags_;
  uint8_t repeated_[kBlock];
};

template <class T>
void add(bool subtract, int n, const T* __restrict x, const T* __restrict shift, T* __restrict y) {
  const T sign = subtract ? T(-1) : T(1);
  for (int i = 0; i < n; ++i) y[i] = x[i] + sign * shift[i];
}

template <class T>
void pass(const Span& s, const Lines<T>& from, T* to, int64_t row, bool streamed) {
  for (int r = 0; r < s.rows; ++r)
    if (streamed)
      stream<T>(from[r], s.columns, to + r * row);
    else
      copy<T>(from[r], 1, s.columns, to + r * row);
}

template <class T>
void forward_span(const CouplingForward<T>& a, const Chosen& chosen, bool streamed, const Span& span, double* totals) {
  T* place = a.y + span.row * a.item.size + span.column;
  const Lines<T> x(a.item, a.x, kCouplingX, span);
  if (span.run && !span.run->chosen) return pass<T>(span, x, place, a.item.size, streamed);
  const Lines<T> shift(a.item, a.shift, kCouplingShift, span), log_scale(a.item, a.log_scale, kCouplingLogScale, span);
  Result<T> y(place, a.item.size, streamed, span);
  alignas(64) T mapped[kBlock];
  for (int l = 0; l < span.lines(); ++l) {
    const Block b = span.line(l);
    const int n = b.size();
    if (a.affine) {
      const T* s = log_scale[l];
      if (!span.run || a.map.kind != ScaleKind::identity) {
        map_log_scale<T>(a.map, n, s, mapped);
        s = mapped;
      }
      transform<T>(!a.inverse, n, x[l], shift[l], s, y[l]);
      if (!span.run) chosen.keep<T>(span, nullptr, mapped);
      add_row_sums(s, b, totals + l);
    } else {
      add<T>(a.inverse, n, x[l], shift[l], y[l]);
    }
    if (!span.run) chosen.keep<T>(span, x[l], y[l]);
    y.stream_to_place(l, n);
  }
}

// Where a span's gradient begins; of a span of both kinds of entries a compact one is packed from its first row on.
template <class T>
T* place(const CouplingGradient<T>& g, const CouplingItem& item, const Span& s) {
  if (!g.data) return nullptr;
  if (!g.compact) return g.data + s.row * item.size + s.column;
  return g.data + s.row * item.transformed + (s.run ? s.run->rank + s.done : 0);
}

template <class T>
Result<T> result(const CouplingGradient<T>& g, const CouplingItem& item, bool streamed, const Span& s) {
  return Result<T>(place(g, item, s), g.compact ? item.transformed : item.size, streamed || (!s.run && g.compact), s);
}

template <class T>
void pack(const CouplingItem& item, const Span& s, const T* from, T* to) {
  for (int r = 0; r < s.rows; ++r, from += s.columns, to += item.transformed)
    for (int64_t k = item.rank[s.column]; k < item.rank[s.column + s.columns]; ++k) to[k] = from[item.index[k] - s.column];
}

// Of one line. Each gradient may be null: not wanted.
template <class T>
void affine_gradients(const CouplingBackward<T>& a, const Block& b, const T* grad_y, const T* x, const T* shift,
                      const T* log_scale, T* grad_x, T* grad_shift, T* grad_log_scale) {
  const int n = b.size();
  const bool multiply = !a.inverse;
  alignas(64) T s[kBlock], derivative[kBlock], unwanted[kBlock];
  map_log_scale<T>(a.map, n, log_scale, s, grad_log_scale ? derivative : nullptr);
  if (!grad_x) grad_x = unwanted;
  // Without a gradient of y its zeros must not meet an infinite scale.
  if (a.grad_y.data)
    pull_scale<T>(multiply, n, grad_y, s, grad_x);
  else
    fill(grad_x, n, T(0));
  if (grad_shift) pull_shift<T>(multiply, n, grad_y, grad_x, grad_shift);
  if (!grad_log_scale) return;
  repeat(a.grad_log_det, a.grad_log_det_step, b, multiply ? T(1) : T(-1), grad_log_scale);
  if (a.grad_y.data) add_pull_s<T>(multiply, n, grad_x, x, shift, grad_log_scale);
  multiply_by<T>(n, derivative, grad_log_scale);
}

template <class T>
void backward_span(const CouplingBackward<T>& a, const Chosen& chosen, bool streamed, const Span& span) {
  const CouplingItem& item = a.item;
  const CouplingGradient<T>* gradients[] = {&a.grad_shift, &a.grad_log_scale};
  const Lines<T> grad_y(item, a.grad_y, kCouplingGradY, span);
  T* place_x = a.grad_x ? a.grad_x + span.row * item.size + span.column : nullptr;
  if (span.run && !span.run->chosen) {
    if (place_x) pass<T>(span, grad_y, place_x, item.size, streamed);
    for (const CouplingGradient<T>* g : gradients)
      if (g->data && !g->compact)
        for (int r = 0; r < span.rows; ++r) fill(place(*g, item, span) + r * item.size, span.columns, T(0));
    return;
  }
  const Lines<T> x(item, a.x, kCouplingX, span), shift(item, a.shift, kCouplingShift, span);
  const Lines<T> log_scale(item, a.log_scale, kCouplingLogScale, span);
  Result<T> grad_x(place_x, item.size, streamed, span);
  Result<T> grads[] = {result(a.grad_shift, item, streamed, span), result(a.grad_log_scale, item, streamed, span)};
  for (int l = 0; l < span.lines(); ++l) {
    const Block b = span.line(l);
    if (a.affine) {
      affine_gradients<T>(a, b, grad_y[l], x[l], shift[l], log_scale[l], grad_x[l], grads[0][l], grads[1][l]);
    } else {
      if (grad_x[l]) copy<T>(grad_y[l], 1, b.size(), grad_x[l]);
      if (grads[0][l]) pull_shift<T>(!a.inverse, b.size(), grad_y[l], grad_y[l], grads[0][l]);
    }
    if (grad_x[l] && !span.run) chosen.keep<T>(span, grad_y[l], grad_x[l]);
    grad_x.stream_to_place(l, b.size());
    for (int i = 0; i < 2; ++i) {
      if (!grads[i][l]) continue;
      if (!span.run && gradients[i]->compact) {
        pack<T>(item, span, grads[i][l], grads[i].place());
        continue;
      }
      if (!span.run) chosen.keep<T>(span, nullptr, grads[i][l]);
      grads[i].stream_to_place(l, b.size());
    }
  }
}

// Calls f(first row, number of rows, whether results are to be streamed).
template <class T, class F>
void for_items(const CouplingItem& item, int64_t rows, const F& f) {
  if (rows * item.size * static_cast<int64_t>(sizeof(T)) < kStreamedBytes)
    for_row_groups(rows, item.size, [&](int64_t row, int n) { f(row, n, false); });
  else
    for_row_groups(rows, item.size, [&](int64_t row, int n) { f(row, n, true); }, 1, end_of_stream);
}

}  // namespace

template <class T>
void coupling_forward(const CouplingForward<T>& a) {
  const Chosen chosen(a.item);
  for_items<T>(a.item, a.rows, [&](int64_t row, int rows, bool streamed) {
    double totals[kBlock];
    fill(totals, rows, 0.0);
    for_spans(a.item, row, rows, [&](const Span& s) { forward_span<T>(a, chosen, streamed, s, totals); });
    for (int64_t r = row; r < row + rows; ++r) {
      const T total = static_cast<T>(a.inverse ? 0.0 - totals[r - row] : totals[r - row]);
      a.log_det[r] = a.log_det_in ? a.log_det_in[r * a.log_det_step] + total : total;
    }
  });
}

template <class T>
void coupling_backward(const CouplingBackward<T>& a) {
  const Chosen chosen(a.item);
  for_items<T>(a.item, a.rows, [&](int64_t row, int rows, bool streamed) {
    for_spans(a.item, row, rows, [&](const Span& s) { backward_span<T>(a, chosen, streamed, s); });
  });
}

FASTGEN_INSTANTIATE_KERNEL(coupling_forward, CouplingForward)
FASTGEN_INSTANTIATE_KERNEL(coupling_backward, CouplingBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
