#include "cpu/gaussian_rsample_kl.h"

#include "cpu/row_blocks.h"
#include "cpu/word_lanes.h"
#include "elementary.h"
#include "philox.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

constexpr int kQuads = 16;

// The normals of kQuads groups of four elements of z.
template <class T>
__attribute__((noinline)) void draw(uint64_t first, const PhiloxKey& key, T* __restrict normals) {
  alignas(64) uint32_t a[kQuads], b[kQuads], c[kQuads], d[kQuads];
  for (int q = 0; q < kQuads; q += kWordLanes) {
    const PhiloxWords<Words> words = philox_from(first + static_cast<uint64_t>(q), key);
    store_words(a + q, words.a);
    store_words(b + q, words.b);
    store_words(c + q, words.c);
    store_words(d + q, words.d);
  }
  for (int q = 0; q < kQuads; ++q) {
    const T length = normal_length<T>(a[q]), length2 = normal_length<T>(c[q]);
    const Direction<T> at = direction<T>(b[q]), at2 = direction<T>(d[q]);
    normals[4 * q] = length * at.cos;
    normals[4 * q + 1] = length * at.sin;
    normals[4 * q + 2] = length2 * at2.cos;
    normals[4 * q + 3] = length2 * at2.sin;
  }
}

// Calls use(begin, n, normals) for pieces of `count` elements of z, element `first` the block's first. Pieces are so short that
// the processor fetches what the next one reads while it computes the normals of this.
template <class T, class Use>
void with_noise(int64_t first, int count, const PhiloxKey& key, const Use& use) {
  alignas(64) T normals[4 * kQuads];
  for (int done = -static_cast<int>(first & 3); done < count; done += 4 * kQuads) {
    draw(static_cast<uint64_t>(first + done) / 4, key, normals);
    const int begin = done < 0 ? 0 : done, end = done + 4 * kQuads < count ? done + 4 * kQuads : count;
    if (end - begin == 4 * kQuads)  // a number of elements that the compiler knows
      use(begin, 4 * kQuads, normals);
    else
      use(begin, end - begin, normals + (begin - done));
  }
}

// A block of the two Gaussians.
template <class T>
struct Gaussians {
  Flat<T> mean, log_var, prior_mean, prior_log_var;
  const bool with_prior;
  alignas(64) T precision[kBlock];  // of the prior

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
    kl[i] = T(0.5) * (math::exp_minus_1_minus(log_var[i] - prior_log_var[i]) + difference * difference * precision[i]);
  }
}

// From the standard normal.
template <class T>
void divergence(int n, const T* __restrict mean, const T* __restrict log_var, T* __restrict kl) {
  for (int i = 0; i < n; ++i) kl[i] = T(0.5) * (math::exp_minus_1_minus(log_var[i]) + mean[i] * mean[i]);
}

template <class T>
void divergence(const Gaussians<T>& g, int begin, int n, T* kl) {
  if (g.with_prior)
    divergence<T>(n, g.mean + begin, g.log_var + begin, g.prior_mean + begin, g.prior_log_var + begin, g.precision + begin,
                  kl + begin);
  else
    divergence<T>(n, g.mean + begin, g.log_var + begin, kl + begin);
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
  explicit Sums(int n) : n_(n) { clear(); }
  Sums(const Sums&) = delete;
  Sums& operator=(const Sums&) = delete;

  struct Four {
    T *mean, *log_var, *prior_mean, *prior_log_var;
  };
  Four from(int begin) { return {part_[0] + begin, part_[1] + begin, part_[2] + begin, part_[3] + begin}; }

  // To be called before a sample's gradients are added.
  void before(int64_t sample) {
    if (sample == 0 || sample % kRun != 0) return;
    for (int g = 0; g < 4; ++g) {
      if (sample == kRun) fill(total_[g], n_, 0.0);
      for (int i = 0; i < n_; ++i) total_[g][i] += double(part_[g][i]);
    }
    clear();
  }

  void write(int begin, int n, int64_t samples, const PosteriorGradients<T>& to, int64_t offset) {
    T* const gradients[] = {to.mean, to.log_var, to.prior_mean, to.prior_log_var};
    for (int g = 0; g < 4; ++g) {
      if (!gradients[g]) continue;
      T* const grad = gradients[g] + offset + begin;
      if (samples > kRun)
        add(n, total_[g] + begin, part_[g] + begin, grad);
      else
        copy(part_[g] + begin, 1, n, grad);
    }
  }

 private:
  static constexpr int kRun = 16;

  void clear() {
    for (int g = 0; g < 4; ++g) fill(part_[g], n_, T(0));
  }

  static void add(int n, const double* __restrict total, const T* __restrict part, T* __restrict to) {
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(total[i] + double(part[i]));
  }

  int n_;
  alignas(64) T part_[4][kBlock];
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
void add_through_kl(const T* grad, const Gaussians<T>& g, int begin, int n, const typename Sums<T>::Four& to) {
  if (g.with_prior)
    add_through_kl<T>(n, grad, g.mean + begin, g.log_var + begin, g.prior_mean + begin, g.prior_log_var + begin,
                      g.precision + begin, to.mean, to.log_var, to.prior_mean, to.prior_log_var);
  else
    add_through_kl<T>(n, grad, g.mean + begin, g.log_var + begin, to.mean, to.log_var);
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
    double totals[kBlock];
    fill(totals, rows, 0.0);
    for_blocks(row, rows, from.features, [&](const Block& b) {
      const Gaussians<T> g(from, b);
      alignas(64) T kl[kBlock], scale[kBlock];
      for (int64_t s = 0; s < from.samples; ++s) {
        const int64_t first = element(from, s, b);
        with_noise<T>(first, b.size(), key, [&](int begin, int n, const T* noise) {
          if (s == 0) {
            divergence(g, begin, n, kl);
            read_scale<T>(n, g.log_var + begin, scale + begin);
          }
          sample<T>(n, g.mean + begin, scale + begin, noise, a.z + first + begin);
        });
      }
      if (a.free_bits > T(0)) raise_to(a.free_bits, b.size(), kl);
      add_row_sums(kl, b, totals);
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
      alignas(64) T scale[kBlock], grad[kBlock], kl[kBlock];
      if (a.grad_kl) repeat(a.grad_kl, a.grad_kl_step, b, T(1), grad);
      const auto finish = [&](int begin, int n) {
        if (a.grad_kl && a.free_bits > T(0)) {
          divergence(g, begin, n, kl);
          silence(a.free_bits, n, kl + begin, grad + begin);
        }
        if (a.grad_kl) add_through_kl(grad + begin, g, begin, n, sums.from(begin));
        sums.write(begin, n, from.samples, a.grads, element(from, 0, b));
      };
      // Without a gradient its zeros must not meet an infinite scale or slope.
      if (!a.grad_z.first.data) return finish(0, b.size());
      for (int64_t s = 0; s < from.samples; ++s) {
        const Flat<T> grad_z(of_sample(a.grad_z, s), b);
        sums.before(s);
        with_noise<T>(element(from, s, b), b.size(), key, [&](int begin, int n, const T* noise) {
          const auto to = sums.from(begin);
          if (s == 0) read_scale<T>(n, g.log_var + begin, scale + begin);
          add_through_z<T>(n, grad_z + begin, scale + begin, noise, to.mean, to.log_var);
          if (s + 1 == from.samples) finish(begin, n);
        });
      }
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
      double totals[kBlock];
      fill(totals, rows, 0.0);
      for_blocks(row, rows, from.features, [&](const Block& b) {
        const Gaussians<T> g(from, b);
        T* const z = a.z + element(from, s, b);
        alignas(64) T scale[kBlock], ratio[kBlock];
        with_noise<T>(element(from, s, b), b.size(), key, [&](int begin, int n, const T* noise) {
          read_scale<T>(n, g.log_var + begin, scale);
          sample<T>(n, g.mean + begin, scale, noise, z + begin);
          log_ratio<T>(n, z + begin, noise, g.log_var + begin, g.prior_mean + begin, g.prior_log_var + begin,
                       g.precision + begin, ratio + begin);
        });
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
      alignas(64) T scale[kBlock], grad[kBlock];
      for (int64_t s = 0; s < from.samples; ++s) {
        const Flat<T> grad_z(of_sample(a.grad_z, s), b);
        const bool with_ratio = a.grad_log_ratio.data;
        if (with_ratio) repeat(a.grad_log_ratio.data + s * a.grad_log_ratio.row, a.grad_log_ratio.column, b, T(1), grad);
        sums.before(s);
        with_noise<T>(element(from, s, b), b.size(), key, [&](int begin, int n, const T* noise) {
          const auto to = sums.from(begin);
          if (s == 0) read_scale<T>(n, g.log_var + begin, scale + begin);
          if (with_ratio)
            add_through_log_ratio<T>(n, grad_z + begin, grad + begin, g.mean + begin, scale + begin, noise,
                                     g.prior_mean + begin, g.precision + begin, to.mean, to.log_var, to.prior_mean,
                                     to.prior_log_var);
          else
            add_through_z<T>(n, grad_z + begin, scale + begin, noise, to.mean, to.log_var);
          if (s + 1 == from.samples) sums.write(begin, n, from.samples, a.grads, element(from, 0, b));
        });
      }
    });
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_forward, GaussianRsampleKlForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_backward, GaussianRsampleKlBackward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_forward, GaussianRsampleLogRatioForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_backward, GaussianRsampleLogRatioBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
