#include "cpu/coupling.h"

#include "cpu/affine_map.h"
#include "cpu/row_blocks.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// A block of entries: a piece of one run, `done` entries into it, or without one whole rows of either kind of entry.
struct Span : Block {
  const CouplingRun* run;
  int64_t done;
};

template <class F>
void for_spans(const CouplingItem& item, int64_t row, int rows, const F& f) {
  if (item.run_count == 0) return for_blocks(row, rows, item.size, [&](const Block& b) { f(Span{b, nullptr, 0}); });
  for (int64_t r = row; r < row + rows; ++r)
    for (const CouplingRun* run = item.runs; run != item.runs + item.run_count; ++run)
      for (int64_t done = 0; done < run->count; done += kBlock) {
        const int64_t left = run->count - done;
        f(Span{Block{r, run->start + done, 1, static_cast<int>(left < kBlock ? left : kBlock)}, run, done});
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

template <class T>
Flat<T> read(const CouplingItem& item, const CouplingOperand<T>& o, CouplingOperandName name, const Span& s) {
  if (o.data && s.run)
    return Flat<T>({o.data + s.run->at[name] + s.done * o.step, o.row, o.step}, Block{s.row, 0, 1, s.columns});
  if (o.data && o.compact) return Flat<T>([&](T* to) { spread(item, o, s, to); });
  if (o.data && o.offset) return Flat<T>([&](T* to) { gather(o, s, to); });
  return Flat<T>({o.data, o.row, 1}, s);
}

// Which entries of a span of either kind are transformed: one flag each, also where a block holds several rows.
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
void forward_span(const CouplingForward<T>& a, const Chosen& chosen, const Span& span, double* totals) {
  const int n = span.size();
  T* y = a.y + span.row * a.item.size + span.column;
  const Flat<T> x = read(a.item, a.x, kCouplingX, span);
  if (span.run && !span.run->chosen) return copy<T>(x, 1, n, y);
  const Flat<T> shift = read(a.item, a.shift, kCouplingShift, span);
  if (a.affine) {
    const Flat<T> log_scale = read(a.item, a.log_scale, kCouplingLogScale, span);
    alignas(64) T mapped[kBlock];
    const T* s = log_scale;
    if (!span.run || a.map.kind != ScaleKind::identity) {
      map_log_scale<T>(a.map, n, log_scale, mapped);
      s = mapped;
    }
    transform<T>(!a.inverse, n, x, shift, s, y);
    if (!span.run) chosen.keep<T>(span, nullptr, mapped);
    add_row_sums(s, span, totals);
  } else {
    add<T>(a.inverse, n, x, shift, y);
  }
  if (!span.run) chosen.keep<T>(span, x, y);
}

// Where a span's gradient is written: in its place, or in `room`, from which `pack` takes the transformed entries.
template <class T>
T* place(const CouplingGradient<T>& g, const CouplingItem& item, const Span& s, T* room) {
  if (!g.data) return nullptr;
  if (!g.compact) return g.data + s.row * item.size + s.column;
  return s.run ? g.data + s.row * item.transformed + s.run->rank + s.done : room;
}

template <class T>
void pack(const CouplingGradient<T>& g, const CouplingItem& item, const Span& s, const T* from) {
  for (int r = 0; r < s.rows; ++r, from += s.columns) {
    T* to = g.data + (s.row + r) * item.transformed;
    for (int64_t k = item.rank[s.column]; k < item.rank[s.column + s.columns]; ++k) to[k] = from[item.index[k] - s.column];
  }
}

template <class T>
void affine_gradients(const CouplingBackward<T>& a, const Span& span, const T* grad_y, T* grad_x, T* grad_shift,
                      T* grad_log_scale) {
  const int n = span.size();
  const bool multiply = !a.inverse;
  const Flat<T> log_scale = read(a.item, a.log_scale, kCouplingLogScale, span);
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
  repeat(a.grad_log_det, a.grad_log_det_step, span, multiply ? T(1) : T(-1), grad_log_scale);
  if (a.grad_y.data) {
    const Flat<T> x = read(a.item, a.x, kCouplingX, span), shift = read(a.item, a.shift, kCouplingShift, span);
    add_pull_s<T>(multiply, n, grad_x, x, shift, grad_log_scale);
  }
  multiply_by<T>(n, derivative, grad_log_scale);
}

template <class T>
void backward_span(const CouplingBackward<T>& a, const Chosen& chosen, const Span& span) {
  const int n = span.size();
  const CouplingGradient<T>* gradients[] = {&a.grad_shift, &a.grad_log_scale};
  const Flat<T> grad_y = read(a.item, a.grad_y, kCouplingGradY, span);
  T* grad_x = a.grad_x ? a.grad_x + span.row * a.item.size + span.column : nullptr;
  if (span.run && !span.run->chosen) {
    if (grad_x) copy<T>(grad_y, 1, n, grad_x);
    for (const CouplingGradient<T>* g : gradients)
      if (g->data && !g->compact) fill(g->data + span.row * a.item.size + span.column, n, T(0));
    return;
  }
  alignas(64) T rooms[2][kBlock];
  T* grads[2];
  for (int i = 0; i < 2; ++i) grads[i] = place(*gradients[i], a.item, span, rooms[i]);
  if (a.affine) {
    affine_gradients<T>(a, span, grad_y, grad_x, grads[0], grads[1]);
  } else {
    if (grad_x) copy<T>(grad_y, 1, n, grad_x);
    if (grads[0]) pull_shift<T>(!a.inverse, n, grad_y, grad_y, grads[0]);
  }
  if (span.run) return;
  if (grad_x) chosen.keep<T>(span, grad_y, grad_x);
  for (int i = 0; i < 2; ++i) {
    if (!grads[i]) continue;
    if (gradients[i]->compact)
      pack(*gradients[i], a.item, span, grads[i]);
    else
      chosen.keep<T>(span, nullptr, grads[i]);
  }
}

}  // namespace

template <class T>
void coupling_forward(const CouplingForward<T>& a) {
  const Chosen chosen(a.item);
  for_row_groups(a.rows, a.item.size, [&](int64_t row, int rows) {
    double totals[kBlock];
    fill(totals, rows, 0.0);
    for_spans(a.item, row, rows, [&](const Span& s) { forward_span<T>(a, chosen, s, totals + (s.row - row)); });
    for (int64_t r = row; r < row + rows; ++r) {
      const T total = static_cast<T>(a.inverse ? 0.0 - totals[r - row] : totals[r - row]);
      a.log_det[r] = a.log_det_in ? a.log_det_in[r * a.log_det_step] + total : total;
    }
  });
}

template <class T>
void coupling_backward(const CouplingBackward<T>& a) {
  const Chosen chosen(a.item);
  for_row_groups(a.rows, a.item.size, [&](int64_t row, int rows) {
    for_spans(a.item, row, rows, [&](const Span& s) { backward_span<T>(a, chosen, s); });
  });
}

FASTGEN_INSTANTIATE_KERNEL(coupling_forward, CouplingForward)
FASTGEN_INSTANTIATE_KERNEL(coupling_backward, CouplingBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
