// Components lie along the SIMD lanes, in panels packed once per call; a tile of rows goes over all panels. What grows with
// rows x components x features never exists: a tile's log-densities are summed up, and made again in the backward pass.
#include "cpu/gaussian_mixture_log_prob.h"

#include <omp.h>

#include "cpu/row_blocks.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "elementary.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;
// Register tile: rows x vectors of components.
constexpr int kRows = 4, kVectors = FASTGEN_VECTOR_BYTES == 64 ? 4 : 2;
// Rows a thread takes at a time, and features whose squares go into one sum.
constexpr int kRowTile = 32, kRun = 64;
// Components whose exponentials share a largest term.
constexpr int kComponentTile = 256;
template <class T>
constexpr int kPanel = kVectors * kLanes<T>;
// After so many panels a row's gradient leaves its lanes.
constexpr int kDrain = 16;

inline int64_t up_to_multiple(int64_t n, int64_t of) { return (n + of - 1) / of * of; }

// e^x for x up to 50, at least e^-87.
template <class T>
FASTGEN_INLINE T exp_below(T x) {
  const T lowest = sizeof(T) == 4 ? T(-87) : T(-708);
  const auto v = math::reduce(x < lowest ? lowest : x);
  return (v.r * v.r * math::exp_tail(v.r) + v.r + T(1)) * math::power_of_two(v.n);
}

// Means and precisions (e^-log_scale) of kPanel components for feature after feature, and the components' constants: the log
// of the weight, unless each row has its own, and of the normalisation, less the largest: near 0 they lose the fewest digits.
template <class T>
class Panels {
 public:
  Panels(const GaussianMixture<T>& m, T* memory) : features_(m.features), count_(panels(m)), memory_(memory) {
    for (int64_t k = 0; k < m.components; ++k) shift_ = most(shift_, constant(m, k));
    if (shift_ == -math::infinity<double>) shift_ = 0;
    for (int64_t p = 0; p < count_; ++p) pack(m, p);
  }

  static int64_t panels(const GaussianMixture<T>& m) { return (m.components + kPanel<T> - 1) / kPanel<T>; }
  static int64_t elements(const GaussianMixture<T>& m) { return panels(m) * stride(m.features); }

  int64_t count() const { return count_; }
  // What the constants lack.
  double shift() const { return shift_; }
  // Feature f of panel p: kPanel means, then kPanel precisions.
  const T* feature(int64_t p, int64_t f) const { return memory_ + p * stride(features_) + (1 + 2 * f) * kPanel<T>; }
  const T* constants(int64_t p) const { return memory_ + p * stride(features_); }

 private:
  static int64_t stride(int64_t features) { return (1 + 2 * features) * kPanel<T>; }

  static double constant(const GaussianMixture<T>& m, int64_t k) {
    double total = m.own_weights ? 0.0 : static_cast<double>(m.log_weights.data[k * m.log_weights.column]);
    for (int64_t f = 0; f < m.features; ++f)
      total -= static_cast<double>(m.log_scales.data[k * m.log_scales.row + f * m.log_scales.column]);
    return total - kHalfLogTwoPi * static_cast<double>(m.features);
  }

  // What is beyond the last component has weight 0.
  void pack(const GaussianMixture<T>& m, int64_t p) {
    T* panel = memory_ + p * stride(features_);
    fill(panel, static_cast<int>(stride(features_)), T(0));
    fill(panel, kPanel<T>, -math::infinity<T>);
    for (int i = 0; i < kPanel<T>; ++i) {
      const int64_t k = p * kPanel<T> + i;
      if (k >= m.components) break;
      for (int64_t f = 0; f < m.features; ++f) {
        panel[(1 + 2 * f) * kPanel<T> + i] = m.means.data[k * m.means.row + f * m.means.column];
        panel[(2 + 2 * f) * kPanel<T> + i] = math::exp(-m.log_scales.data[k * m.log_scales.row + f * m.log_scales.column]);
      }
      panel[i] = static_cast<T>(constant(m, k) - shift_);
    }
  }

  int64_t features_, count_;
  T* memory_;
  double shift_ = -math::infinity<double>;
};

// Half the squared distances of kRows rows from a panel's components over a run of features, off the constants or, where
// those are null, off what `to` holds.
template <class T>
FASTGEN_INLINE void subtract_distances(const T* constants, const T* panel, const T* x, int64_t features, int run, T* to,
                                       int step) {
  Vec<T> sums[kRows][kVectors] = {};
  for (int f = 0; f < run; ++f, panel += 2 * kPanel<T>)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Vec<T> mean = load(panel + v * kLanes<T>), precision = load(panel + kPanel<T> + v * kLanes<T>);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Vec<T> z = (x[r * features + f] - mean) * precision;
        sums[r][v] += z * z;
      }
    }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      T* at = to + r * step + v * kLanes<T>;
      store(at, load(constants ? constants + v * kLanes<T> : at) - T(0.5) * sums[r][v]);
    }
}

// The weighted log-densities of `rows` rows (up to a multiple of kRows) under a panel's components, into `to`.
template <class T>
void log_densities(const GaussianMixture<T>& m, const Panels<T>& panels, int64_t p, int64_t row, const T* x, int rows, T* to,
                   int step) {
  for (int64_t f = 0; f < m.features; f += kRun) {
    const int run = static_cast<int>(least<int64_t>(kRun, m.features - f));
    const T* constants = f == 0 ? panels.constants(p) : nullptr;
    for (int r = 0; r < rows; r += kRows)
      subtract_distances(constants, panels.feature(p, f), x + r * m.features + f, m.features, run, to + r * step, step);
  }
  if (!m.own_weights) return;
  const int64_t first = p * kPanel<T>, wide = least<int64_t>(kPanel<T>, m.components - first);
  for (int r = 0; r < rows && row + r < m.rows; ++r) {
    const T* own = m.log_weights.data + (row + r) * m.log_weights.row + first * m.log_weights.column;
    for (int64_t i = 0; i < wide; ++i) to[r * step + i] += own[i * m.log_weights.column];
  }
}

// Rows of x one after the other, zeros beyond the last.
template <class T>
void gather_rows(const GaussianMixture<T>& m, int64_t row, int rows, T* to) {
  for (int r = 0; r < rows; ++r, to += m.features)
    for (int64_t f = 0; f < m.features; ++f) to[f] = row + r < m.rows ? m.x.data[(row + r) * m.x.row + f * m.x.column] : T(0);
}

// A sum of exponentials, relative to the largest.
template <class T>
struct LogSumExp {
  T largest;
  double sum;
};

template <class T>
T largest(const T* v, int n) {
  T part[16];
  for (int l = 0; l < 16; ++l) part[l] = v[0];
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; ++l) part[l] = most(part[l], v[i + l]);
  for (; i < n; ++i) part[0] = most(part[0], v[i]);
  for (int width = 8; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) part[l] = most(part[l], part[l + width]);
  return part[0];
}

// The sum of e^(v - reference), in 16 partial sums.
template <class T>
T sum_of_exp(const T* __restrict v, int n, T reference) {
  T part[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; ++l) part[l] += exp_below(v[i + l] - reference);
  for (int l = 0; i + l < n; ++l) part[l] += exp_below(v[i + l] - reference);
  return sum(part, 16);
}

// bounded: whether no v is above 0. Then a reference this near 0 stays: no exponential nor their sum can overflow.
template <class T>
void absorb(LogSumExp<T>& state, int n, const T* v, bool bounded) {
  if (!(bounded && state.largest > T(-50))) {
    const T reference = most(state.largest, largest(v, n));
    state.sum *= static_cast<double>(exp_below(state.largest - reference));
    state.largest = reference;
  }
  state.sum += static_cast<double>(sum_of_exp(v, n, state.largest));
}

template <class T>
constexpr T kLowest = sizeof(T) == 4 ? T(-3.4028234663852886e38) : T(-1.7976931348623157e308);

// Rows in a tile: so few that every thread gets some.
inline int row_tile(int64_t rows, int threads) {
  const int64_t share = up_to_multiple((rows + threads - 1) / threads, kRows);
  return static_cast<int>(least<int64_t>(kRowTile, most<int64_t>(share, kRows)));
}

template <class T>
int threads_for(const GaussianMixture<T>& m) {
  const double wanted = 1.0 + static_cast<double>(m.rows) * m.components * m.features / (8.0 * kGrain);
  const int available = omp_get_max_threads();
  return wanted < available ? static_cast<int>(wanted) : available;
}

// What a thread works in for the gradients: a tile of rows, and its share of the components' gradients.
template <class T>
struct Work {
  T* x;                // kRowTile x features
  T* densities;        // kRowTile x kPanel: then what each row sends to each component
  T* lanes;            // features x kRowTile x kLanes: gradients of x, each lane its components'
  double* weights;     // by component
  double* means;       // panels x features x kPanel, without the factor e^-2 log_scale
  double* log_scales;  // likewise
  double* grad_x;      // kRowTile x features

  static int64_t values(const GaussianMixture<T>& m) {
    return up_to_multiple(kRowTile * (m.features * (kLanes<T> + 1) + kPanel<T>), 16);
  }
  // The components' share comes first.
  static int64_t shared(const GaussianMixture<T>& m) { return Panels<T>::panels(m) * kPanel<T> * (1 + 2 * m.features); }
  static int64_t sums(const GaussianMixture<T>& m) { return up_to_multiple(shared(m) + kRowTile * m.features, 8); }

  Work(const GaussianMixture<T>& m, T* value, double* sum) {
    const int64_t components = Panels<T>::panels(m) * kPanel<T>;
    lanes = value;
    densities = lanes + kRowTile * m.features * kLanes<T>;
    x = densities + kRowTile * kPanel<T>;
    weights = sum;
    means = weights + components;
    log_scales = means + components * m.features;
    grad_x = log_scales + components * m.features;
  }

  void clear(const GaussianMixture<T>& m) const {
    for (int64_t i = 0; i < shared(m); ++i) weights[i] = 0;
    for (int64_t i = 0; i < kRowTile * m.features * kLanes<T>; ++i) lanes[i] = T(0);
  }
};

// Panel p's share of the gradients: rows' to x in lanes, components' to means and log-scales in double.
template <bool Rows, bool Components, class T>
void pull_panel(const GaussianMixture<T>& m, const Panels<T>& panels, int64_t p, int rows, const Work<T>& work) {
  for (int64_t f = 0; f < m.features; ++f) {
    const T* panel = panels.feature(p, f);
    Vec<T> mean[kVectors], factor[kVectors], first[kVectors] = {}, second[kVectors] = {};
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      mean[v] = load(panel + v * kLanes<T>);
      const Vec<T> precision = load(panel + kPanel<T> + v * kLanes<T>);
      factor[v] = precision * precision;
    }
    for (int r = 0; r < rows; ++r) {
      const T x = work.x[r * m.features + f];
      T* lane = work.lanes + (f * kRowTile + r) * kLanes<T>;
      Vec<T> grad = Rows ? load(lane) : Vec<T>{};
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Vec<T> difference = x - mean[v], pull = load(work.densities + r * kPanel<T> + v * kLanes<T>) * difference;
        if (Components) {
          first[v] += pull;
          second[v] += pull * difference;
        }
        if (Rows) grad -= pull * factor[v];
      }
      if (Rows) store(lane, grad);
    }
    if (Components) {
      T sums[2][kPanel<T>];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        store(sums[0] + v * kLanes<T>, first[v]);
        store(sums[1] + v * kLanes<T>, second[v]);
      }
      double* __restrict means = work.means + (p * m.features + f) * kPanel<T>;
      double* __restrict log_scales = work.log_scales + (p * m.features + f) * kPanel<T>;
      for (int i = 0; i < kPanel<T>; ++i) {
        means[i] += double(sums[0][i]);
        log_scales[i] += double(sums[1][i]);
      }
    }
  }
}

template <class T>
void pull_panel(bool for_rows, bool for_components, const GaussianMixture<T>& m, const Panels<T>& panels, int64_t p, int rows,
                const Work<T>& work) {
  if (for_rows && for_components)
    pull_panel<true, true>(m, panels, p, rows, work);
  else if (for_rows)
    pull_panel<true, false>(m, panels, p, rows, work);
  else if (for_components)
    pull_panel<false, true>(m, panels, p, rows, work);
}

// The sums over lanes, added to the rows' gradients; the lanes are 0 again.
template <class T>
void drain(const GaussianMixture<T>& m, int rows, const Work<T>& work) {
  for (int64_t f = 0; f < m.features; ++f)
    for (int r = 0; r < rows; r += kLanes<T>) {
      T* lanes = work.lanes + (f * kRowTile + r) * kLanes<T>;
      Vec<T> square[kLanes<T>], total = {};
      for (int i = 0; i < kLanes<T>; ++i) {
        square[i] = load(lanes + i * kLanes<T>);
        store(lanes + i * kLanes<T>, Vec<T>{});
      }
      transpose<T>(square);
      for (int i = 0; i < kLanes<T>; ++i) total += square[i];
      for (int i = 0; i < kLanes<T> && r + i < rows; ++i) work.grad_x[(r + i) * m.features + f] += double(total[i]);
    }
}

// What each row sends to each of a panel's components, grad e^(log-density - log_prob), in place of the log-densities. It is 0
// below e^-80 (float), so that products with it are no denormals, which take a hundred times as long.
template <class T>
void responsibilities(const GaussianMixtureLogProbBackward<T>& a, double shift, int64_t row, int rows, T* densities) {
  for (int r = 0; r < rows; ++r) {
    T* __restrict at = densities + r * kPanel<T>;
    const bool inside = row + r < a.mixture.rows;
    const T grad = inside ? a.grad[(row + r) * a.grad_step] : T(0);
    const double exact = inside ? static_cast<double>(a.log_prob[row + r]) + static_cast<double>(a.remainder[row + r]) : shift;
    const T total = static_cast<T>(exact - shift);
    const T lowest = sizeof(T) == 4 ? T(-80) : T(-690);
    for (int i = 0; i < kPanel<T>; ++i) {
      const T e = exp_below(at[i] - total);
      at[i] = inside && !(at[i] - total < lowest) ? grad * e : T(0);
    }
  }
}

template <class T>
void pull_weights(const GaussianMixtureLogProbBackward<T>& a, int64_t p, int64_t row, int rows, const Work<T>& work) {
  const GaussianMixture<T>& m = a.mixture;
  T sums[kPanel<T>] = {};
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < kPanel<T>; ++i) sums[i] += work.densities[r * kPanel<T> + i];
  for (int i = 0; i < kPanel<T>; ++i) work.weights[p * kPanel<T> + i] += double(sums[i]);
  if (!a.grad_log_weights || !m.own_weights) return;
  const int64_t first = p * kPanel<T>, wide = least<int64_t>(kPanel<T>, m.components - first);
  for (int r = 0; r < rows && row + r < m.rows; ++r)
    for (int64_t i = 0; i < wide; ++i)
      a.grad_log_weights[(row + r) * m.components + first + i] = work.densities[r * kPanel<T> + i];
}

template <class T>
void pull_rows(const GaussianMixtureLogProbBackward<T>& a, const Panels<T>& panels, int64_t row, int rows,
               const Work<T>& work) {
  const GaussianMixture<T>& m = a.mixture;
  gather_rows(m, row, rows, work.x);
  for (int64_t i = 0; i < rows * m.features; ++i) work.grad_x[i] = 0;
  for (int64_t p = 0; p < panels.count(); ++p) {
    log_densities(m, panels, p, row, work.x, rows, work.densities, kPanel<T>);
    responsibilities(a, panels.shift(), row, rows, work.densities);
    pull_weights(a, p, row, rows, work);
    pull_panel(a.grad_x, a.grad_means || a.grad_log_scales, m, panels, p, rows, work);
    if (a.grad_x && (p % kDrain == kDrain - 1 || p + 1 == panels.count())) drain(m, rows, work);
  }
  if (!a.grad_x) return;
  const int64_t inside = least<int64_t>(rows, m.rows - row);
  for (int64_t i = 0; i < inside * m.features; ++i) a.grad_x[row * m.features + i] = static_cast<T>(work.grad_x[i]);
}

// The gradients of the components from their sums over all rows.
template <class T>
void write_components(const GaussianMixtureLogProbBackward<T>& a, const Panels<T>& panels, const Work<T>& total) {
  const GaussianMixture<T>& m = a.mixture;
  for (int64_t k = 0; k < m.components; ++k) {
    if (a.grad_log_weights && !m.own_weights) a.grad_log_weights[k] = static_cast<T>(total.weights[k]);
    if (!a.grad_means && !a.grad_log_scales) continue;
    const int64_t p = k / kPanel<T>, lane = k % kPanel<T>;
    for (int64_t f = 0; f < m.features; ++f) {
      const double precision = panels.feature(p, f)[kPanel<T> + lane], factor = precision * precision;
      const int64_t at = (p * m.features + f) * kPanel<T> + lane;
      if (a.grad_means) a.grad_means[k * m.features + f] = static_cast<T>(factor * total.means[at]);
      if (a.grad_log_scales)
        a.grad_log_scales[k * m.features + f] = static_cast<T>(factor * total.log_scales[at] - total.weights[k]);
    }
  }
}

}  // namespace

template <class T>
void gaussian_mixture_log_prob_forward(const GaussianMixtureLogProbForward<T>& a) {
  static thread_local Scratch packed, tiles;
  const GaussianMixture<T>& m = a.mixture;
  const Panels<T> panels(m, packed.get<T>(Panels<T>::elements(m)));
  const int threads = threads_for(m), rows = row_tile(m.rows, threads);
  const int64_t room = up_to_multiple(kRowTile * (m.features + kComponentTile), 16), count = (m.rows + rows - 1) / rows;
  T* const memory = tiles.get<T>(threads * room);
  constexpr int group = kComponentTile / kPanel<T>;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t tile = 0; tile < count; ++tile) {
    T* const densities = memory + omp_get_thread_num() * room;
    T* const x = densities + kRowTile * kComponentTile;
    LogSumExp<T> states[kRowTile];
    for (int r = 0; r < rows; ++r) states[r] = {kLowest<T>, 0.0};
    gather_rows(m, tile * rows, rows, x);
    for (int64_t p = 0; p < panels.count(); p += group) {
      const int together = static_cast<int>(least<int64_t>(group, panels.count() - p));
      for (int i = 0; i < together; ++i)
        log_densities(m, panels, p + i, tile * rows, x, rows, densities + i * kPanel<T>, kComponentTile);
      for (int r = 0; r < rows; ++r) absorb(states[r], together * kPanel<T>, densities + r * kComponentTile, !m.own_weights);
    }
    for (int r = 0; r < rows && tile * rows + r < m.rows; ++r) {
      const LogSumExp<T>& s = states[r];
      const double log_prob = panels.shift() + static_cast<double>(s.largest) + math::log(s.sum);
      const bool any = s.largest > kLowest<T> || s.sum != s.sum;
      const T rounded = any ? static_cast<T>(log_prob) : -math::infinity<T>;
      a.log_prob[tile * rows + r] = rounded;
      a.remainder[tile * rows + r] = any ? static_cast<T>(log_prob - static_cast<double>(rounded)) : T(0);
    }
  }
  packed.trim();
  tiles.trim();
}

template <class T>
void gaussian_mixture_log_prob_backward(const GaussianMixtureLogProbBackward<T>& a) {
  static thread_local Scratch packed, values, sums;
  const GaussianMixture<T>& m = a.mixture;
  const Panels<T> panels(m, packed.get<T>(Panels<T>::elements(m)));
  const int threads = threads_for(m), rows = row_tile(m.rows, threads);
  const int64_t count = (m.rows + rows - 1) / rows, value_room = Work<T>::values(m), sum_room = Work<T>::sums(m);
  T* const value = values.get<T>(threads * value_room);
  double* const sum = sums.get<double>(threads * sum_room);
  // A share for each thread, whether or not it gets tiles.
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int t = 0; t < threads; ++t) {
    const Work<T> work(m, value + t * value_room, sum + t * sum_room);
    work.clear(m);
    for (int64_t tile = count * t / threads; tile < count * (t + 1) / threads; ++tile)
      pull_rows(a, panels, tile * rows, rows, work);
  }
  for (int t = 1; t < threads; ++t)
    for (int64_t i = 0; i < Work<T>::shared(m); ++i) sum[i] += sum[t * sum_room + i];
  write_components(a, panels, Work<T>(m, value, sum));
  packed.trim();
  values.trim();
  sums.trim();
}

FASTGEN_INSTANTIATE_KERNEL(gaussian_mixture_log_prob_forward, GaussianMixtureLogProbForward)
FASTGEN_INSTANTIATE_KERNEL(gaussian_mixture_log_prob_backward, GaussianMixtureLogProbBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
