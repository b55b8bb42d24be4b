#include "cpu/likelihoods.h"

#include "cpu/row_blocks.h"
#include "elementary.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// How much of x is the outcome that the logit makes the less likely one.
template <class T>
FASTGEN_HD_INLINE T unlikely(T x, T logit) {
  return logit < T(0) ? x : T(1) - x;
}

// -unlikely |logit| - log(1 + e^-|logit|): what is certain and happens has log-probability 0.
template <class T>
void bernoulli(int n, const T* __restrict x, const T* __restrict logits, T* __restrict log_prob) {
  for (int i = 0; i < n; ++i) {
    const T share = unlikely(x[i], logits[i]), size = math::abs(logits[i]), cost = share * size;
    log_prob[i] = -(share == T(0) ? T(0) : cost) - math::log1p(math::exp(-size));
  }
}

template <class T>
void pull_logits(int n, const T* __restrict grad, const T* __restrict x, const T* __restrict logits, T* __restrict to) {
  for (int i = 0; i < n; ++i) {
    const T t = math::exp(-math::abs(logits[i])), excess = t / (T(1) + t) - unlikely(x[i], logits[i]);
    to[i] = grad[i] * (logits[i] < T(0) ? -excess : excess);
  }
}

template <class T>
void pull_outcome(int n, const T* __restrict grad, const T* __restrict x, const T* __restrict logits, T* __restrict to) {
  for (int i = 0; i < n; ++i) {
    const bool certain = unlikely(x[i], logits[i]) == T(0) && math::abs(logits[i]) == math::infinity<T>;
    to[i] = certain ? T(0) : grad[i] * logits[i];
  }
}

// log(1 - e^-d) for d > 0
template <class T>
FASTGEN_HD_INLINE T log_1_minus_exp(T d) {
  const bool near = d < T(0.69);
  const T e = near ? -math::expm1(-d) : math::exp(-d);
  return near ? math::log(e) : math::log1p(-e);
}

template <class T>
void logistic(T half, int n, const T* __restrict x, const T* __restrict mean, const T* __restrict log_scale,
              T* __restrict log_prob) {
  for (int i = 0; i < n; ++i) {
    const T precision = math::exp(-log_scale[i]), difference = x[i] - mean[i];
    const T below = math::log_sigmoid((difference + half) * precision);
    const T above = math::log_sigmoid(-(difference - half) * precision);
    const T inside = below + above + log_1_minus_exp(T(2) * half * precision);
    log_prob[i] = x[i] < half ? below : (x[i] > T(1) - half ? above : inside);
  }
}

// The derivatives by x and by log_scale, times the gradient.
template <class T>
void pull_logistic(T half, int n, const T* __restrict grad, const T* __restrict x, const T* __restrict mean,
                   const T* __restrict log_scale, T* __restrict by_x, T* __restrict by_log_scale) {
  for (int i = 0; i < n; ++i) {
    const T precision = math::exp(-log_scale[i]), difference = x[i] - mean[i];
    const T upper = (difference + half) * precision, lower = (difference - half) * precision;
    const bool first = x[i]<half, last = x[i]> T(1) - half;
    const T from_upper = last ? T(0) : math::sigmoid(-upper), from_lower = first ? T(0) : math::sigmoid(lower);
    const T width = T(2) * half * precision, ratio = width / math::expm1(width);
    by_x[i] = grad[i] * precision * (from_upper - from_lower);
    by_log_scale[i] = grad[i] * (lower * from_lower - upper * from_upper - (first || last ? T(0) : ratio));
  }
}

template <class T>
void move(int n, T factor, const T* __restrict from, T* __restrict to) {
  for (int i = 0; i < n; ++i) to[i] = factor * from[i];
}

template <class T>
T largest(int n, const T* v) {
  T most = v[0];
  for (int i = 1; i < n; ++i) most = v[i] > most || v[i] != v[i] ? v[i] : most;
  return most;
}

template <class T>
void exponentials(int n, const T* __restrict v, const T* __restrict shift, T* __restrict e) {
  for (int i = 0; i < n; ++i) e[i] = math::exp(v[i] - shift[i]);
}

// The largest logit of each position, and the sum of e^(logit - largest).
template <class T>
void normalise(const Strided<T>& logits, int64_t position, int positions, int64_t categories, T* peaks, double* sums) {
  for_blocks(position, positions, categories, [&](const Block& b) {
    const Flat<T> values(logits, b);
    for (int r = 0; r < b.rows; ++r) {
      const T most = largest(b.columns, values + r * b.columns);
      peaks[r] = b.column == 0 || most > peaks[r] || most != most ? most : peaks[r];
    }
  });
  for_blocks(position, positions, categories, [&](const Block& b) {
    const Flat<T> values(logits, b);
    T shift[kBlock], e[kBlock];
    for (int r = 0; r < b.rows; ++r) fill(shift + r * b.columns, b.columns, peaks[r]);
    exponentials<T>(b.size(), values, shift, e);
    add_row_sums(e, b, sums);
  });
}

}  // namespace

template <class T>
void bernoulli_log_prob_forward(const BernoulliForward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    double totals[kBlock] = {};
    for_blocks(row, rows, a.features, [&](const Block& b) {
      T log_prob[kBlock];
      bernoulli<T>(b.size(), Flat<T>(a.x, b), Flat<T>(a.logits, b), log_prob);
      add_row_sums(log_prob, b, totals);
    });
    for (int r = 0; r < rows; ++r) a.log_prob[row + r] = static_cast<T>(totals[r]);
  });
}

template <class T>
void bernoulli_log_prob_backward(const BernoulliBackward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    for_blocks(row, rows, a.features, [&](const Block& b) {
      const Flat<T> x(a.x, b), logits(a.logits, b);
      T grad[kBlock];
      const int64_t offset = b.row * a.features + b.column;
      repeat(a.grad, a.grad_step, b, T(1), grad);
      if (a.grad_logits) pull_logits<T>(b.size(), grad, x, logits, a.grad_logits + offset);
      if (a.grad_x) pull_outcome<T>(b.size(), grad, x, logits, a.grad_x + offset);
    });
  });
}

template <class T>
void discretized_logistic_log_prob_forward(const DiscretizedLogisticForward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    double totals[kBlock] = {};
    for_blocks(row, rows, a.features, [&](const Block& b) {
      T log_prob[kBlock];
      logistic<T>(a.half, b.size(), Flat<T>(a.x, b), Flat<T>(a.mean, b), Flat<T>(a.log_scale, b), log_prob);
      add_row_sums(log_prob, b, totals);
    });
    for (int r = 0; r < rows; ++r) a.log_prob[row + r] = static_cast<T>(totals[r]);
  });
}

template <class T>
void discretized_logistic_log_prob_backward(const DiscretizedLogisticBackward<T>& a) {
  for_row_groups(a.rows, a.features, [&](int64_t row, int rows) {
    for_blocks(row, rows, a.features, [&](const Block& b) {
      T grad[kBlock], by_x[kBlock], by_log_scale[kBlock];
      const int64_t offset = b.row * a.features + b.column;
      repeat(a.grad, a.grad_step, b, T(1), grad);
      pull_logistic<T>(a.half, b.size(), grad, Flat<T>(a.x, b), Flat<T>(a.mean, b), Flat<T>(a.log_scale, b), by_x,
                       by_log_scale);
      if (a.grad_x) move(b.size(), T(1), by_x, a.grad_x + offset);
      if (a.grad_mean) move(b.size(), T(-1), by_x, a.grad_mean + offset);
      if (a.grad_log_scale) move(b.size(), T(1), by_log_scale, a.grad_log_scale + offset);
    });
  });
}

template <class T>
void categorical_log_prob_forward(const CategoricalForward<T>& a) {
  for_row_groups(a.positions, a.categories, [&](int64_t position, int positions) {
    T peaks[kBlock];
    double sums[kBlock] = {};
    normalise(a.logits, position, positions, a.categories, peaks, sums);
    for (int r = 0; r < positions; ++r) {
      const int64_t x = a.x[(position + r) * a.x_step];
      const bool known = x >= 0 && x < a.categories;
      const T logit = known ? a.logits.data[(position + r) * a.logits.row + x * a.logits.column] : T(__builtin_nan(""));
      a.log_prob[position + r] = logit - peaks[r] - math::log(static_cast<T>(sums[r]));
    }
  });
}

template <class T>
void categorical_log_prob_backward(const CategoricalBackward<T>& a) {
  for_row_groups(a.positions, a.categories, [&](int64_t position, int positions) {
    T peaks[kBlock];
    double sums[kBlock] = {};
    normalise(a.logits, position, positions, a.categories, peaks, sums);
    for_blocks(position, positions, a.categories, [&](const Block& b) {
      const Flat<T> logits(a.logits, b);
      T shift[kBlock], e[kBlock];
      for (int r = 0; r < b.rows; ++r) fill(shift + r * b.columns, b.columns, peaks[r]);
      exponentials<T>(b.size(), logits, shift, e);
      for (int r = 0; r < b.rows; ++r) {
        const T grad = a.grad[(b.row + r) / a.features * a.grad_step];
        T* to = a.grad_logits + (b.row + r) * a.categories + b.column;
        move(b.columns, -grad / static_cast<T>(sums[r]), e + r * b.columns, to);
        const int64_t x = a.x[(b.row + r) * a.x_step] - b.column;
        if (x >= 0 && x < b.columns) to[x] += grad;
      }
    });
  });
}

FASTGEN_INSTANTIATE_KERNEL(bernoulli_log_prob_forward, BernoulliForward)
FASTGEN_INSTANTIATE_KERNEL(bernoulli_log_prob_backward, BernoulliBackward)
FASTGEN_INSTANTIATE_KERNEL(discretized_logistic_log_prob_forward, DiscretizedLogisticForward)
FASTGEN_INSTANTIATE_KERNEL(discretized_logistic_log_prob_backward, DiscretizedLogisticBackward)
FASTGEN_INSTANTIATE_KERNEL(categorical_log_prob_forward, CategoricalForward)
FASTGEN_INSTANTIATE_KERNEL(categorical_log_prob_backward, CategoricalBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
