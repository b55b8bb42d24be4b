#include "cpu/gaussian_rsample_kl.h"

#include "cpu/noise.h"
#include "cpu/row_blocks.h"
#include "cpu/sample_sums.h"
#include "elementary.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// Whether a prior that was not given is written out, as zeros and ones.
enum class StandardPrior { implied, written_out };

// A block of the two Gaussians.
template <class T>
struct Gaussians {
  Flat<T> mean, log_var, prior_mean, prior_log_var;
  const bool with_prior;
  alignas(64) T precision[kBlock];  // of the prior

  Gaussians(const GaussianSamples<T>& from, const Block& b, StandardPrior standard = StandardPrior::implied)
      : mean(from.mean, b),
        log_var(from.log_var, b),
        prior_mean(from.prior_mean, of_prior(from, b, standard)),
        prior_log_var(from.prior_log_var, of_prior(from, b, standard)),
        with_prior(from.prior_log_var.data) {
    if (with_prior)
      invert(b.size(), prior_log_var);
    else if (standard == StandardPrior::written_out)
      fill(precision, b.size(), T(1));
  }

 private:
  static Block of_prior(const GaussianSamples<T>& from, const Block& b, StandardPrior standard) {
    return from.prior_log_var.data || standard == StandardPrior::written_out ? b : Block{};
  }

  void invert(int n, const T* __restrict log_variance) {
    for (int i = 0; i < n; ++i) precision[i] = math::exp(-log_variance[i]);
  }
};

// x / 2, cut to where e^(x / 2) is a normal number, 0 or infinite. In loops of their own: both comparisons in one, or beside
// the polynomials, become branches whose outcomes are all computed.
template <class T>
void halve(int n, const T* __restrict x, T* __restrict half) {
  using L = math::Limits<T>;
  constexpr T least = L::ln2_hi * -T(L::bias - 1);
  for (int i = 0; i < n; ++i) {
    const T h = T(0.5) * x[i];
    half[i] = h < least ? least : h;
  }
  for (int i = 0; i < n; ++i) half[i] = half[i] > L::exp_max ? L::exp_max : half[i];
}

// e^(x / 2), 0 for a denormal, e^x - 1 and e^x - 1 - x, of one polynomial.
template <class T>
struct Variance {
  T scale, slope, excess;
};
template <class T>
FASTGEN_INLINE Variance<T> variance(T half, T x) {
  const math::Reduced<T> v = math::reduce(half);
  // With q = e^r - 1, e^2r - 1 = q (q + 2), which is q^2 + 2 (q - r) more than 2 r.
  const T tail = v.r * v.r * math::exp_tail(v.r), q = tail + v.r, q2 = q * (q + T(2)), power = math::power_of_two(v.n, -1);
  const bool small = v.n == T(0);
  const T slope = small ? q2 : (T(4) * q2 + T(4)) * power * power - T(1);
  return {(T(2) * q + T(2)) * power, slope, small ? q * q + T(2) * tail : slope - x};
}

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
void divergence(int n, const T* __restrict mean, const T* __restrict log_var, T* __restrict kl, T* __restrict scale) {
  halve(n, log_var, scale);
  for (int i = 0; i < n; ++i) {
    const Variance<T> v = variance(scale[i], log_var[i]);
    scale[i] = v.scale;
    kl[i] = T(0.5) * (v.excess + mean[i] * mean[i]);
  }
}

// And the scale.
template <class T>
void divergence(const Gaussians<T>& g, int begin, int n, T* kl, T* scale) {
  if (!g.with_prior) return divergence<T>(n, g.mean + begin, g.log_var + begin, kl + begin, scale + begin);
  divergence<T>(n, g.mean + begin, g.log_var + begin, g.prior_mean + begin, g.prior_log_var + begin, g.precision + begin,
                kl + begin);
  read_scale<T>(n, g.log_var + begin, scale + begin);
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

template <class T>
void add_through_z(int n, const T* __restrict grad_z, const T* __restrict scale, const T* __restrict noise,
                   T* __restrict grad_mean, T* __restrict grad_log_var) {
  for (int i = 0; i < n; ++i) {
    grad_mean[i] += grad_z[i];
    grad_log_var[i] += T(0.5) * grad_z[i] * scale[i] * noise[i];
  }
}

// From the standard normal: also through z of one sample, and the scale.
template <bool with_z, class T>
FASTGEN_INLINE void set_through_kl(int n, const T* __restrict grad, const T* __restrict mean, const T* __restrict log_var,
                                   const T* __restrict grad_z, const T* __restrict noise, T* __restrict scale,
                                   T* __restrict grad_mean, T* __restrict grad_log_var) {
  halve<T>(n, log_var, scale);
  for (int i = 0; i < n; ++i) {
    const Variance<T> v = variance(scale[i], log_var[i]);
    scale[i] = v.scale;
    const T through_mean = grad[i] * mean[i], through_log_var = grad[i] * v.slope;
    grad_mean[i] = with_z ? through_mean + grad_z[i] : through_mean;
    grad_log_var[i] = T(0.5) * (with_z ? through_log_var + grad_z[i] * v.scale * noise[i] : through_log_var);
  }
}

template <class T>
void set_through_kl(int n, const T* __restrict grad, const T* __restrict mean, const T* __restrict log_var,
                    const T* __restrict prior_mean, const T* __restrict prior_log_var, const T* __restrict precision,
                    T* __restrict grad_mean, T* __restrict grad_log_var, T* __restrict grad_prior_mean,
                    T* __restrict grad_prior_log_var) {
  for (int i = 0; i < n; ++i) {
    const T difference = mean[i] - prior_mean[i], slope = math::expm1(log_var[i] - prior_log_var[i]);
    const T pull = grad[i] * difference * precision[i];
    grad_mean[i] = pull;
    grad_log_var[i] = T(0.5) * grad[i] * slope;
    grad_prior_mean[i] = -pull;
    grad_prior_log_var[i] = T(-0.5) * (grad[i] * slope + pull * difference);
  }
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
          if (s == 0) divergence(g, begin, n, kl, scale);
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
      Sums<T> sums(b.size(), from.samples, a.grads, element(from, 0, b));
      alignas(64) T scale[kBlock], grad[kBlock], kl[kBlock];
      if (a.grad_kl) repeat(a.grad_kl, a.grad_kl_step, b, T(1), grad);
      const bool with_z = a.grad_z.first.data, with_kl = a.grad_kl;
      // Through kl, and through z of the first sample. Without a gradient its zeros must not meet an infinite scale or slope.
      const auto start = [&](int begin, int n, const T* grad_z, const T* noise) {
        const auto to = sums.from(begin);
        if (with_kl && a.free_bits > T(0)) {
          divergence(g, begin, n, kl, scale);
          silence(a.free_bits, n, kl + begin, grad + begin);
        }
        if (with_kl && !g.with_prior && with_z)
          return set_through_kl<true, T>(n, grad + begin, g.mean + begin, g.log_var + begin, grad_z, noise, scale + begin,
                                         to.mean, to.log_var);
        if (with_kl && !g.with_prior)
          return set_through_kl<false, T>(n, grad + begin, g.mean + begin, g.log_var + begin, nullptr, nullptr, scale + begin,
                                          to.mean, to.log_var);
        if (with_kl)
          set_through_kl<T>(n, grad + begin, g.mean + begin, g.log_var + begin, g.prior_mean + begin, g.prior_log_var + begin,
                            g.precision + begin, to.mean, to.log_var, to.prior_mean, to.prior_log_var);
        else
          sums.clear(begin, n);
        read_scale<T>(n, g.log_var + begin, scale + begin);
        if (with_z) add_through_z<T>(n, grad_z, scale + begin, noise, to.mean, to.log_var);
      };
      if (!with_z) start(0, b.size(), nullptr, nullptr);
      for (int64_t s = 0; s < from.samples && with_z; ++s) {
        const Flat<T> grad_z(of_sample(a.grad_z, s), b);
        sums.before(s);
        with_noise<T>(element(from, s, b), b.size(), key, [&](int begin, int n, const T* noise) {
          if (s == 0) return start(begin, n, grad_z + begin, noise);
          const auto to = sums.from(begin);
          add_through_z<T>(n, grad_z + begin, scale + begin, noise, to.mean, to.log_var);
        });
      }
      sums.write();
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
        const Gaussians<T> g(from, b, StandardPrior::written_out);
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
      const Gaussians<T> g(from, b, StandardPrior::written_out);
      Sums<T> sums(b.size(), from.samples, a.grads, element(from, 0, b));
      sums.clear(0, b.size());
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
        });
      }
      sums.write();
    });
  };
  for_row_groups(from.rows, from.features, group, from.samples);
}

FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_forward, GaussianRsampleKlForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_kl_backward, GaussianRsampleKlBackward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_forward, GaussianRsampleLogRatioForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_rsample_log_ratio_backward, GaussianRsampleLogRatioBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
