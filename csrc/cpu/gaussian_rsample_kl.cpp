#include "cpu/gaussian_rsample_kl.h"

#include "cpu/row_blocks.h"
#include "cpu/word_lanes.h"
#include "elementary.h"
#include "philox.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// The normals of `count` elements of z, from element `first` on.
template <class T>
class Noise {
 public:
  Noise(int64_t first, int count, PhiloxKey key) : skipped_(static_cast<int>(first & 3)) {
    const int quads = (skipped_ + count + 3) / 4;
    uint32_t words[4][kQuads];
    draw(static_cast<uint64_t>(first) / 4, quads, key, words[0], words[1], words[2], words[3]);
    T lengths[2][kQuads];
    for (int half = 0; half < 2; ++half) measure(quads, words[2 * half], lengths[half]);
    turn(quads, lengths[0], words[1], lengths[1], words[3], normals_);
  }
  Noise(const Noise&) = delete;
  Noise& operator=(const Noise&) = delete;
  operator const T*() const { return normals_ + skipped_; }

 private:
  // Whole vectors of words, in all of which are two groups more than a block has.
  static constexpr int kQuads = (kBlock / 4 + 2 + kWordLanes - 1) / kWordLanes * kWordLanes;

  static void draw(uint64_t first, int quads, PhiloxKey key, uint32_t* a, uint32_t* b, uint32_t* c, uint32_t* d) {
    for (int q = 0; q < quads; q += kWordLanes) {
      const uint64_t index = first + static_cast<uint64_t>(q);
      const Words low = count_from(uint32_t(index)), carried = (Words)(low < uint32_t(index));
      // A comparison that holds is -1 in every bit.
      const PhiloxWords<Words> w = philox(low, uint32_t(index >> 32) - carried, key, MultiplyLanes{});
      store_words(a + q, w.a);
      store_words(b + q, w.b);
      store_words(c + q, w.c);
      store_words(d + q, w.d);
    }
  }

  static void measure(int quads, const uint32_t* __restrict words, T* __restrict lengths) {
    for (int q = 0; q < quads; ++q) lengths[q] = normal_length<T>(words[q]);
  }

  static void turn(int quads, const T* __restrict length_a, const uint32_t* __restrict turn_a, const T* __restrict length_b,
                   const uint32_t* __restrict turn_b, T* __restrict normals) {
    for (int q = 0; q < quads; ++q) {
      const Direction<T> a = direction<T>(turn_a[q]), b = direction<T>(turn_b[q]);
      normals[4 * q] = length_a[q] * a.cos;
      normals[4 * q + 1] = length_a[q] * a.sin;
      normals[4 * q + 2] = length_b[q] * b.cos;
      normals[4 * q + 3] = length_b[q] * b.sin;
    }
  }

  int skipped_;
  T normals_[4 * kQuads];
};

// e^d - 1 - d: below 1/2 by its series, where the difference would lose digits.
inline float exp_minus_1_minus(float d) {
  const float series = math::polynomial(d, 1.0f / 3628800, 1.0f / 362880, 1.0f / 40320, 1.0f / 5040, 1.0f / 720, 1.0f / 120,
                                        1.0f / 24, 1.0f / 6, 0.5f);
  const float difference = math::expm1(d) - d;
  return math::abs(d) < 0.5f ? d * d * series : difference;
}
inline double exp_minus_1_minus(double d) {
  const double series =
      math::polynomial(d, 1.0 / 1307674368000, 1.0 / 87178291200, 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800,
                       1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5);
  const double difference = math::expm1(d) - d;
  return math::abs(d) < 0.5 ? d * d * series : difference;
}

// A block of the two Gaussians.
template <class T>
struct Gaussians {
  Flat<T> mean, log_var, prior_mean, prior_log_var;
  const bool with_prior;
  T precision[kBlock];  // of the prior

  Gaussians(const GaussianSamples<T>& from, const Block& b)
      : mean(from.mean, b),
        log_var(from.log_var, b),
        prior_mean(from.prior_mean, b),
        prior_log_var(from.prior_log_var, b),
        with_prior(from.prior_log_var.data) {
    if (with_prior)
      invert(b.size(), prior_log_var);
    else
      fill(precision, b.size(), T(1));
  }

 private:
  void invert(int n, const T* __restrict log_variance) {
    for (int i = 0; i < n; ++i) precision[i] = math::exp(-log_variance[i]);
  }
};

template <class T>
void read_scale(int n, const T* __restrict log_var, T* __restrict scale) {
  for (int i = 0; i < n; ++i) scale[i] = math::exp(T(0.5) * log_var[i]);
}

template <class T>
void sample(int n, const T* __restrict mean, const T* __restrict scale, const T* __restrict noise, T* __restrict z) {
  for (int i = 0; i < n; ++i) z[i] = mean[i] + scale[i] * noise[i];
}

template <class T>
void divergence(int n, const T* __restrict mean, const T* __restrict log_var, const T* __restrict prior_mean,
                const T* __restrict prior_log_var, const T* __restrict precision, T* __restrict kl) {
  for (int i = 0; i < n; ++i) {
    const T difference = mean[i] - prior_mean[i];
    kl[i] = T(0.5) * (exp_minus_1_minus(log_var[i] - prior_log_var[i]) + difference * difference * precision[i]);
  }
}

// From the standard normal.
template <class T>
void divergence(int n, const T* __restrict mean, const T* __restrict log_var, T* __restrict kl) {
  for (int i = 0; i < n; ++i) kl[i] = T(0.5) * (exp_minus_1_minus(log_var[i]) + mean[i] * mean[i]);
}

template <class T>
void divergence(int n, const Gaussians<T>& g, T* kl) {
  if (g.with_prior)
    divergence<T>(n, g.mean, g.log_var, g.prior_mean, g.prior_log_var, g.precision, kl);
  else
    divergence<T>(n, g.mean, g.log_var, kl);
}

template <class T>
void raise_to(T least, int n, T* __restrict v) {
  for (int i = 0; i < n; ++i) v[i] = v[i] < least ? least : v[i];
}

// No gradient where the divergence is below the free bits.
template <class T>
void silence(T least, int n, const T* __restrict kl, T* __restrict grad) {
  for (int i = 0; i < n; ++i) grad[i] = kl[i] < least ? T(0) : grad[i];
}

// The gradients of one block, summed over samples: a few in T, runs of them in double.
template <class T>
class Sums {
 public:
  struct Four {
    T *mean, *log_var, *prior_mean, *prior_log_var;
  };

  explicit Sums(int n) : n_(n) { clear(); }
  Sums(const Sums&) = delete;
  Sums& operator=(const Sums&) = delete;

  Four after(int64_t sample) {
    if (sample > 0 && sample % kRun == 0) drain(sample == kRun);
    return {part_[0], part_[1], part_[2], part_[3]};
  }

  void write(int64_t samples, const PosteriorGradients<T>& to, int64_t offset) {
    T* const gradients[] = {to.mean, to.log_var, to.prior_mean, to.prior_log_var};
    if (samples > kRun) drain(false);
    for (int g = 0; g < 4; ++g)
      if (gradients[g] && samples > kRun)
        convert(n_, total_[g], gradients[g] + offset);
      else if (gradients[g])
        convert(n_, part_[g], gradients[g] + offset);
  }

 private:
  static constexpr int kRun = 16;

  void clear() {
    for (int g = 0; g < 4; ++g) fill(part_[g], n_, T(0));
  }

  void drain(bool first) {
    for (int g = 0; g < 4; ++g) {
      if (first) fill(total_[g], n_, 0.0);
      for (int i = 0; i < n_; ++i) total_[g][i] += double(part_[g][i]);
    }
    clear();
  }

  template <class From>
  static void convert(int n, const From* __restrict from, T* __restrict to) {
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]);
  }

  int n_;
  T part_[4][kBlock];
  double total_[4][kBlock];
};

template <class T>
void add_through_z(int n, const T* __restrict grad_z, const T* __restrict scale, const T* __restrict noise,
                   T* __restrict grad_mean, T* __restrict grad_log_var) {
  for (int i = 0; i < n; ++i) {
    grad_mean[i] += grad_z[i];
    grad_log_var[i] += T(0.5) * grad_z[i] * scale[i] * noise[i];
  }
}

template <class T>
void add_through_kl(int n, const T* __restrict grad, const T* __restrict mean, const T* __restrict log_var,
                    T* __restrict grad_mean, T* __restrict grad_log_var) {
  for (int i = 0; i < n; ++i) {
    grad_mean[i] += grad[i] * mean[i];
    grad_log_var[i] += T(0.5) * grad[i] * math::expm1(log_var[i]);
  }
}

template <class T>
void add_through_kl(int n, const T* __restrict grad, const T* __restrict mean, const T* __restrict log_var,
                    const T* __restrict prior_mean, const T* __restrict prior_log_var, const T* __restrict precision,
                    T* __restrict grad_mean, T* __restrict grad_log_var, T* __restrict grad_prior_mean,
                    T* __restrict grad_prior_log_var) {
  for (int i = 0; i < n; ++i) {
    const T difference = mean[i] - prior_mean[i], slope = math::expm1(log_var[i] - prior_log_var[i]);
    const T pull = grad[i] * difference * precision[i];
    grad_mean[i] += pull;
    grad_log_var[i] += T(0.5) * grad[i] * slope;
    grad_prior_mean[i] -= pull;
    grad_prior_log_var[i] -= T(0.5) * (grad[i] * slope + pull * difference);
  }
}

template <class T>
void add_through_kl(const T* grad, const Gaussians<T>& g, int n, const typename Sums<T>::Four& to) {
  if (g.with_prior)
    add_through_kl<T>(n, grad, g.mean, g.log_var, g.prior_mean, g.prior_log_var, g.precision, to.mean, to.log_var,
                      to.prior_mean, to.prior_log_var);
  else
    add_through_kl<T>(n, grad, g.mean, g.log_var, to.mean, to.log_var);
}

template <class T>
void add_through_log_ratio(int n, const T* __restrict grad_z, const T* __restrict grad, const T* __restrict mean,
                           const T* __restrict scale, const T* __restrict noise, const T* __restrict prior_mean,
                           const T* __restrict precision, T* __restrict grad_mean, T* __restrict grad_log_var,
                           T* __restrict grad_prior_mean, T* __restrict grad_prior_log_var) {
  for (int i = 0; i < n; ++i) {
    const T difference = mean[i] + scale[i] * noise[i] - prior_mean[i];
    const T pull = grad[i] * difference * precision[i], through_z = grad_z[i] + pull;
    grad_mean[i] += through_z;
    grad_log_var[i] += T(0.5) * (through_z * scale[i] * noise[i] - grad[i]);
    grad_prior_mean[i] -= pull;
    grad_prior_log_var[i] += T(0.5) * (grad[i] - pull * difference);
  }
}

template <class T>
void log_ratio(int n, const T* __restrict z, const T* __restrict noise, const T* __restrict log_var,
               const T* __restrict prior_mean, const T* __restrict prior_log_var, const T* __restrict precision,
               T* __restrict ratio) {
  for (int i = 0; i < n; ++i) {
    const T difference = z[i] - prior_mean[i];
    ratio[i] = T(0.5) * (difference * difference * precision[i] - noise[i] * noise[i] - (log_var[i] - prior_log_var[i]));
  }
}

// Where a block of sample s begins in z.
template <class T>
int64_t element(const GaussianSamples<T>& from, int64_t s, const Block& b) {
  return (s * from.rows + b.row) * from.features + b.column;
}

template <class T>
Strided<T> of_sample(const SampleGradient<T>& g, int64_t s) {
  return {g.first.data ? g.first.data + s * g.step : nullptr, g.first.row, g.first.column};
}

}  // namespace

template <class T>
void gaussian_rsample_kl_forward(const GaussianRsampleKlForward<T>& a) {
  const GaussianSamples<T>& from = a.from;
  const PhiloxKey key(from.seed);
  const auto group = [&](int64_t row, int rows) {
    double totals[kBlock] = {};
    for_blocks(row, rows, from.features, [&](const Block& b) {
      const Gaussians<T> g(from, b);
      T kl[kBlock], scale[kBlock];
      divergence(b.size(), g, kl);
      if (a.free_bits > T(0)) raise_to(a.free_bits, b.size(), kl);
      add_row_sums(kl, b, totals);
      read_scale<T>(b.size(), g.log_var, scale);
      for (int64_t s = 0; s < from.samples; ++s) {
        const int64_t first = element(from, s, b);
        sample<T>(b.size(), g.mean, scale, Noise<T>(first, b.size(), key), a.z + first);
      }
    });
    for (int r = 0; r < rows; ++r) a.kl[row + r] = static_cast<T>(totals[r]);
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

template <class T>
void gaussian_rsample_kl_backward(const GaussianRsampleKlBackward<T>& a) {
  const GaussianSamples<T>& from = a.from;
  const PhiloxKey key(from.seed);
  const auto group = [&](int64_t row, int rows) {
    for_blocks(row, rows, from.features, [&](const Block& b) {
      const Gaussians<T> g(from, b);
      Sums<T> sums(b.size());
      // Without a gradient its zeros must not meet an infinite scale or slope.
      if (a.grad_z.first.data) {
        T scale[kBlock];
        read_scale<T>(b.size(), g.log_var, scale);
        for (int64_t s = 0; s < from.samples; ++s) {
          const auto to = sums.after(s);
          add_through_z<T>(b.size(), Flat<T>(of_sample(a.grad_z, s), b), scale, Noise<T>(element(from, s, b), b.size(), key),
                           to.mean, to.log_var);
        }
      }
      if (a.grad_kl) {
        T grad[kBlock];
        repeat(a.grad_kl, a.grad_kl_step, b, T(1), grad);
        if (a.free_bits > T(0)) {
          T kl[kBlock];
          divergence(b.size(), g, kl);
          silence(a.free_bits, b.size(), kl, grad);
        }
        add_through_kl(grad, g, b.size(), sums.after(0));
      }
      sums.write(from.samples, a.grads, element(from, 0, b));
    });
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

template <class T>
void gaussian_rsample_log_ratio_forward(const GaussianRsampleLogRatioForward<T>& a) {
  const GaussianSamples<T>& from = a.from;
  const PhiloxKey key(from.seed);
  const auto group = [&](int64_t row, int rows) {
    for (int64_t s = 0; s < from.samples; ++s) {
      double totals[kBlock] = {};
      for_blocks(row, rows, from.features, [&](const Block& b) {
        const Gaussians<T> g(from, b);
        const int64_t first = element(from, s, b);
        const Noise<T> noise(first, b.size(), key);
        T scale[kBlock], ratio[kBlock];
        read_scale<T>(b.size(), g.log_var, scale);
        sample<T>(b.size(), g.mean, scale, noise, a.z + first);
        log_ratio<T>(b.size(), a.z + first, noise, g.log_var, g.prior_mean, g.prior_log_var, g.precision, ratio);
        add_row_sums(ratio, b, totals);
      });
      for (int r = 0; r < rows; ++r) a.log_ratio[s * from.rows + row + r] = static_cast<T>(totals[r]);
    }
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

template <class T>
void gaussian_rsample_log_ratio_backward(const GaussianRsampleLogRatioBackward<T>& a) {
  const GaussianSamples<T>& from = a.from;
  const PhiloxKey key(from.seed);
  const auto group = [&](int64_t row, int rows) {
    for_blocks(row, rows, from.features, [&](const Block& b) {
      const Gaussians<T> g(from, b);
      Sums<T> sums(b.size());
      T scale[kBlock], grad[kBlock];
      read_scale<T>(b.size(), g.log_var, scale);
      for (int64_t s = 0; s < from.samples; ++s) {
        const Flat<T> grad_z(of_sample(a.grad_z, s), b);
        const Noise<T> noise(element(from, s, b), b.size(), key);
        const auto to = sums.after(s);
        if (a.grad_log_ratio.data) {
          repeat(a.grad_log_ratio.data + s * a.grad_log_ratio.row, a.grad_log_ratio.column, b, T(1), grad);
          add_through_log_ratio<T>(b.size(), grad_z, grad, g.mean, scale, noise, g.prior_mean, g.precision, to.mean, to.log_var,
                                   to.prior_mean, to.prior_log_var);
        } else {
          add_through_z<T>(b.size(), grad_z, scale, noise, to.mean, to.log_var);
        }
      }
      sums.write(from.samples, a.grads, element(from, 0, b));
    });
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_forward, GaussianRsampleKlForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_backward, GaussianRsampleKlBackward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_forward, GaussianRsampleLogRatioForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_backward, GaussianRsampleLogRatioBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
