#include "cpu/radial.h"

#include "cpu/row_lanes.h"
#include "radial_layer.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// Tiles whose parameter gradients are summed before they join the rest, as rows are before their tile's join: for accuracy.
constexpr int kTogether = 16;

// One layer's parameters for the rows of a tile.
template <class T>
struct Rows {
  const T* centre;
  int64_t step;
  T alpha[kLaneRows], reach[kLaneRows], beta[kLaneRows];
  Rows(const RadialParameters<T>& p, int64_t k, int64_t row, int64_t rows)
      : centre(p.centre + k * p.centre_layer + row * p.centre_row), step(p.centre_row) {
    for (int64_t r = 0; r < kLaneRows; ++r) {
      const int64_t at = row + (r < rows ? r : 0);
      alpha[r] = p.log_alpha[k * p.alpha_layer + at * p.alpha_row];
      beta[r] = p.raw_beta[k * p.beta_layer + at * p.beta_row];
    }
    for (int r = 0; r < kLaneRows; ++r) {
      alpha[r] = math::exp(alpha[r]);
      reach[r] = math::softplus(beta[r]);
    }
  }
};

// |z - c| of each row.
template <class T>
void lengths(const Rows<T>& p, int64_t rows, int64_t features, const T* z, T* length) {
  const int64_t width = padded<T>(features);
  T sums[1][kLaneRows];
  lane_sums<1>(rows, features, sums, [&](auto access, int64_t r, int64_t d, Vec<T>* acc) {
    const Vec<T> away = load(z + r * width + d) - access.get(p.centre + r * p.step + d);
    acc[0] += away * away;
  });
  for (int r = 0; r < kLaneRows; ++r) length[r] = math::sqrt(sums[0][r]);
}

// to[r][:] = c + factor[r] (z[r][:] - c)
template <class T>
void stretch_rows(const Rows<T>& p, int64_t rows, int64_t features, const T* factor, const T* z, T* to) {
  const int64_t width = padded<T>(features);
  for (int64_t r = 0; r < rows; ++r) {
    const T scale = factor[r];
    for_features<T>(features, [&](auto access, int64_t d) {
      const Vec<T> c = access.get(p.centre + r * p.step + d);
      store(to + r * width + d, c + scale * (load(z + r * width + d) - c));
    });
  }
}

template <class T>
void forward_tile(const RadialForward<T>& f, int64_t row, int64_t rows, T* z) {
  const int64_t features = f.features, count = f.layers.count;
  copy_tile(f.z, row, rows, features, z);
  T total[kLaneRows] = {};
  for (int64_t i = 0; i < count; ++i) {
    const Rows<T> p(f.layers, f.inverse ? count - 1 - i : i, row, rows);
    T r[kLaneRows], factor[kLaneRows];
    lengths(p, rows, features, z, r);
    if (f.inverse)
      for (int j = 0; j < kLaneRows; ++j) r[j] = radial_root(r[j], p.alpha[j], p.reach[j]);
    for (int j = 0; j < kLaneRows; ++j) {
      const T ratio = radial_ratio(r[j], p.alpha[j], p.reach[j]);
      factor[j] = f.inverse ? T(1) / ratio : ratio;
      total[j] += radial_log_det(r[j], p.alpha[j], p.reach[j], static_cast<T>(features));
    }
    stretch_rows(p, rows, features, factor, z, z);
  }
  for (int64_t r = 0; r < rows; ++r) f.log_det[row + r] = f.inverse ? -total[r] : total[r];
  write_tile(z, rows, features, f.out + row * features);
}

// Gradients of shared parameters, summed over rows.
template <class T>
struct Sums {
  T *centre, *log_alpha, *raw_beta;
  static int64_t size(int64_t features, int64_t count) { return count * (padded<T>(features) + 2); }
  Sums(int64_t features, int64_t count, T* at)
      : centre(at), log_alpha(centre + count * padded<T>(features)), raw_beta(log_alpha + count) {}
};

template <class T>
struct BackwardRoom {
  T *grad, *z, *tile, *sums, *total;
  static int64_t size(int64_t features, int64_t count) {
    return kLaneRows * padded<T>(features) * (count + 1) + 3 * Sums<T>::size(features, count);
  }
  BackwardRoom(int64_t features, int64_t count, T* at)
      : grad(at),
        z(grad + kLaneRows * padded<T>(features)),
        tile(z + kLaneRows * padded<T>(features) * count),
        sums(tile + Sums<T>::size(features, count)),
        total(sums + Sums<T>::size(features, count)) {}
};

// |z - c| of what layers map, from that of what `f` reads.
template <class T>
void radii(bool inverse, const Rows<T>& p, T* r) {
  if (inverse)
    for (int j = 0; j < kLaneRows; ++j) r[j] = radial_root(r[j], p.alpha[j], p.reach[j]);
}

// What each layer read, in the order in which they are applied.
template <class T>
void walk_again(const RadialBackward<T>& f, int64_t row, int64_t rows, T* z) {
  const int64_t size = kLaneRows * padded<T>(f.features), count = f.layers.count;
  copy_tile(f.z, row, rows, f.features, z);
  for (int64_t i = 0; i + 1 < count; ++i) {
    const Rows<T> p(f.layers, f.inverse ? count - 1 - i : i, row, rows);
    T r[kLaneRows], factor[kLaneRows];
    lengths(p, rows, f.features, z + i * size, r);
    radii(f.inverse, p, r);
    for (int j = 0; j < kLaneRows; ++j) {
      const T ratio = radial_ratio(r[j], p.alpha[j], p.reach[j]);
      factor[j] = f.inverse ? T(1) / ratio : ratio;
    }
    clear(z + (i + 1) * size, size);
    stretch_rows(p, rows, f.features, factor, z + i * size, z + (i + 1) * size);
  }
}

// `i`: of the layer in the order in which they are applied.
template <class T>
void pull_layer(const RadialBackward<T>& f, int64_t i, int64_t row, int64_t rows, const T* grad_log_det,
                const BackwardRoom<T>& s) {
  const int64_t features = f.features, width = padded<T>(features), count = f.layers.count;
  const int64_t k = f.inverse ? count - 1 - i : i;
  const Rows<T> p(f.layers, k, row, rows);
  const T* const z = s.z + i * kLaneRows * width;
  T sums[2][kLaneRows], radius[kLaneRows], scale[kLaneRows], share[kLaneRows], alpha[kLaneRows], beta[kLaneRows];
  lane_sums<2>(rows, features, sums, [&](auto access, int64_t r, int64_t d, Vec<T>* acc) {
    const Vec<T> away = load(z + r * width + d) - access.get(p.centre + r * p.step + d);
    acc[0] += away * away;
    acc[1] += away * load(s.grad + r * width + d);
  });
  for (int r = 0; r < kLaneRows; ++r) radius[r] = math::sqrt(sums[0][r]);
  radii(f.inverse, p, radius);
  for (int r = 0; r < kLaneRows; ++r) {
    const T ratio = radial_ratio(radius[r], p.alpha[r], p.reach[r]), back = f.inverse ? T(1) / ratio : T(1);
    const RadialPull<T> pull =
        radial_pull(f.inverse, radius[r], back * sums[1][r], grad_log_det[r], p.alpha[r], p.reach[r], static_cast<T>(features));
    scale[r] = pull.scale, share[r] = back * pull.share;
    alpha[r] = pull.alpha * p.alpha[r], beta[r] = pull.reach * math::sigmoid(p.beta[r]);
  }
  const Sums<T> total(features, count, s.tile);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = (row + r) * count + k;
    T* const g = s.grad + r * width;
    for_features<T>(features, [&](auto access, int64_t d) {
      const Vec<T> away = load(z + r * width + d) - access.get(p.centre + r * p.step + d), before = load(g + d);
      const Vec<T> after = scale[r] * before + share[r] * away;
      store(g + d, after);
      if (f.layers.shared)
        store(total.centre + k * width + d, load(total.centre + k * width + d) + (before - after));
      else if (f.grad_centre)
        access.put(f.grad_centre + at * features + d, before - after);
    });
    if (f.layers.shared) {
      total.log_alpha[k] += alpha[r];
      total.raw_beta[k] += beta[r];
    } else {
      if (f.grad_log_alpha) f.grad_log_alpha[at] = alpha[r];
      if (f.grad_raw_beta) f.grad_raw_beta[at] = beta[r];
    }
  }
}

template <class T>
void backward_tile(const RadialBackward<T>& f, int64_t row, const BackwardRoom<T>& s) {
  const int64_t rows = least<int64_t>(kLaneRows, f.rows - row), count = f.layers.count;
  T grad_log_det[kLaneRows] = {};
  for (int64_t r = 0; r < rows && f.grad_log_det; ++r) grad_log_det[r] = f.grad_log_det[(row + r) * f.grad_log_det_step];
  copy_tile(f.grad_out, row, rows, f.features, s.grad);
  walk_again(f, row, rows, s.z);
  for (int64_t i = count - 1; i >= 0; --i) pull_layer(f, i, row, rows, grad_log_det, s);
  if (f.grad_in) write_tile(s.grad, rows, f.features, f.grad_in + row * f.features);
}

}  // namespace

template <class T>
void radial_forward(const RadialForward<T>& f) {
  static thread_local Scratch scratch;
  for_tiles<T>(f.rows, f.features * f.layers.count, scratch, kLaneRows * padded<T>(f.features),
               [&](int64_t row, int64_t rows, T* room) { forward_tile(f, row, rows, room); });
}

template <class T>
void radial_backward(const RadialBackward<T>& f) {
  static thread_local Scratch scratch;
  const int64_t features = f.features, count = f.layers.count, tiles = (f.rows + kLaneRows - 1) / kLaneRows;
  const int64_t size = BackwardRoom<T>::size(features, count), n = Sums<T>::size(features, count);
  const int threads = lane_threads(f.rows, features * count);
  T* const rooms = scratch.get<T>(threads * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t thread = omp_get_thread_num();
    const BackwardRoom<T> own(features, count, rooms + thread * size);
    clear(own.tile, n);
    clear(own.sums, n);
    clear(own.total, n);
    const int64_t begin = tiles * thread / threads, end = tiles * (thread + 1) / threads;
    for (int64_t i = begin; i < end; ++i) {
      backward_tile(f, i * kLaneRows, own);
      move_sums(own.tile, n, own.sums);
      if ((i - begin) % kTogether == kTogether - 1) move_sums(own.sums, n, own.total);
    }
    move_sums(own.sums, n, own.total);
  }
  const BackwardRoom<T> first(features, count, rooms);
  for (int t = 1; t < threads; ++t) move_sums(BackwardRoom<T>(features, count, rooms + t * size).total, n, first.total);
  if (f.layers.shared) {
    const Sums<T> sums(features, count, first.total);
    if (f.grad_centre) write_tile(sums.centre, count, features, f.grad_centre);
    for (int64_t k = 0; k < count; ++k) {
      if (f.grad_log_alpha) f.grad_log_alpha[k] = sums.log_alpha[k];
      if (f.grad_raw_beta) f.grad_raw_beta[k] = sums.raw_beta[k];
    }
  }
  scratch.trim();
}

FASTGEN_INSTANTIATE_KERNEL(radial_forward, RadialForward)
FASTGEN_INSTANTIATE_KERNEL(radial_backward, RadialBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
