#include "cpu/planar.h"
#include "cpu/planar_layers.h"
#include "cpu/row_lanes.h"

// Layers of which each row has its own: a tile of rows stays in the first cache through all layers, features along the lanes
// for what is as long as a row, rows along the lanes for what is one number per row.
namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// One layer's parameters for the rows of a tile.
template <class T>
struct Rows {
  const T *u_, *w_, *b_;
  int64_t u_row, w_row, b_row;
  Rows(const PlanarParameters<T>& p, int64_t k, int64_t row)
      : u_(p.u + k * p.u_layer + row * p.u_row),
        w_(p.w + k * p.w_layer + row * p.w_row),
        b_(p.b + k * p.b_layer + row * p.b_row),
        u_row(p.u_row),
        w_row(p.w_row),
        b_row(p.b_row) {}
  const T* u(int64_t r) const { return u_ + r * u_row; }
  const T* w(int64_t r) const { return w_ + r * w_row; }
  T b(int64_t r) const { return b_[r * b_row]; }
};

// What w.u and |w|^2 of each row make of its layer.
template <class T>
struct TileLayer {
  T missing[kLaneRows], stretch[kLaneRows], log_stretch[kLaneRows];
  bool careful;

  TileLayer(const T* along, const T* norm, bool constrain) {
    T limit = T(0);
    for (int r = 0; r < kLaneRows; ++r) {
      const PlanarLayer<T> layer = planar_layer(along[r], norm[r], constrain);
      missing[r] = layer.missing;
      stretch[r] = layer.stretch;
    }
    for (int r = 0; r < kLaneRows; ++r) limit = most(limit, underflow_limit(stretch[r]));
    careful = limit > T(0);
    if (careful)
      for (int r = 0; r < kLaneRows; ++r) log_stretch[r] = planar_layer(along[r], norm[r], constrain).log_stretch;
  }
};

template <class T>
void add_log_det(const TileLayer<T>& layer, const T* a, const T* det, T* total) {
  if (layer.careful)
    for (int r = 0; r < kLaneRows; ++r)
      total[r] +=
          det[r] < underflow_limit(layer.stretch[r]) ? log_small_det(a[r], layer.log_stretch[r]) : math::log(math::abs(det[r]));
  else
    for (int r = 0; r < kLaneRows; ++r) total[r] += math::log(math::abs(det[r]));
}

// z[r][:] += h[r] direction[r][:]
template <class T>
void add_direction(const Rows<T>& p, int64_t rows, int64_t features, const T* h, const T* missing, T* z) {
  const int64_t width = padded<T>(features);
  for (int64_t r = 0; r < rows; ++r) {
    const T factor = h[r], share = missing[r];
    const T *const u = p.u(r), *const w = p.w(r);
    T* const to = z + r * width;
    for_features<T>(features, [&](auto access, int64_t d) {
      store(to + d, load(to + d) + factor * (access.get(u + d) + share * access.get(w + d)));
    });
  }
}

template <class T>
void forward_tile(const PlanarForward<T>& f, int64_t row, int64_t rows, T* z) {
  const int64_t features = f.features, width = padded<T>(features), count = f.layers.count;
  copy_tile(f.z, row, rows, features, z);
  T total[kLaneRows] = {};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = f.inverse ? count - 1 - i : i;
    const Rows<T> p(f.layers, k, row);
    T sums[3][kLaneRows], a[kLaneRows] = {}, h[kLaneRows], det[kLaneRows];
    lane_sums<3>(rows, features, sums, [&](auto access, int64_t r, int64_t d, Vec<T>* acc) {
      const Vec<T> w = access.get(p.w(r) + d);
      acc[0] += w * access.get(p.u(r) + d);
      acc[1] += w * w;
      acc[2] += w * load(z + r * width + d);
    });
    const TileLayer<T> layer(sums[0], sums[1], f.layers.constrain);
    for (int64_t r = 0; r < rows; ++r) a[r] = sums[2][r] + p.b(r);
    if (f.inverse) solve_lanes<T, kLaneRows>(layer.stretch, a, a);
    for (int r = 0; r < kLaneRows; ++r) {
      const Tanh<T> tanh = tanh_with_slope(a[r]);
      h[r] = f.inverse ? -tanh.value : tanh.value;
      det[r] = planar_det(tanh, layer.stretch[r]);
    }
    if (f.saved)
      for (int64_t r = 0; r < rows; ++r) f.saved[k * f.rows + row + r] = a[r];
    add_log_det(layer, a, det, total);
    add_direction(p, rows, features, h, layer.missing, z);
  }
  for (int64_t r = 0; r < rows; ++r) f.log_det[row + r] = f.inverse ? -total[r] : total[r];
  write_tile(z, rows, features, f.out + row * features);
}

// What one layer's gradients are made of, row by row.
template <class T>
struct LayerPull {
  T h[kLaneRows], missing[kLaneRows], a[kLaneRows], along[kLaneRows], norm[kLaneRows];
};

// grad: from the gradient of the layer's result to that of its input. In the place of grad_w is what the layer read.
template <class T>
void pull_rows(const PlanarBackward<T>& f, int64_t k, int64_t row, int64_t rows, const LayerPull<T>& pull, T* grad) {
  const Rows<T> p(f.layers, k, row);
  const int64_t features = f.features, width = padded<T>(features);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = ((row + r) * f.layers.count + k) * features;
    const T *const u = p.u(r), *const w = p.w(r);
    T* const g = grad + r * width;
    const T h = f.inverse ? -pull.h[r] : pull.h[r], a = pull.a[r], along = pull.along[r], norm = pull.norm[r];
    const T missing = pull.missing[r];
    for_features<T>(features, [&](auto access, int64_t d) {
      const Vec<T> x = access.get(w + d), before = load(g + d), after = before + a * x;
      store(g + d, after);
      const Vec<T> direction = h * (f.inverse ? after : before);
      if (f.grad_u) access.put(f.grad_u + at + d, direction + along * x);
      if (f.grad_w)
        access.put(f.grad_w + at + d,
                   a * access.get(f.grad_w + at + d) + missing * direction + along * access.get(u + d) + norm * x);
    });
    if (f.grad_b) f.grad_b[(row + r) * f.layers.count + k] = a;
  }
}

template <class T>
struct BackwardRoom {
  T *z, *grad, *along, *norm;
  static int64_t size(int64_t features, int64_t count) { return kLaneRows * 2 * (padded<T>(features) + count); }
  BackwardRoom(int64_t features, int64_t count, T* at)
      : z(at),
        grad(z + kLaneRows * padded<T>(features)),
        along(grad + kLaneRows * padded<T>(features)),
        norm(along + kLaneRows * count) {}
};

// w.u and |w|^2 of all layers and, in the place of grad_w, what each layer read.
template <class T>
void walk_again(const PlanarBackward<T>& f, int64_t row, int64_t rows, const BackwardRoom<T>& s) {
  const int64_t features = f.features, width = padded<T>(features);
  if (f.grad_w) copy_tile(f.z, row, rows, features, s.z);
  for (int64_t k = 0; k < f.layers.count; ++k) {
    const Rows<T> p(f.layers, k, row);
    T sums[2][kLaneRows];
    lane_sums<2>(rows, features, sums, [&](auto access, int64_t r, int64_t d, Vec<T>* acc) {
      const Vec<T> w = access.get(p.w(r) + d);
      acc[0] += w * access.get(p.u(r) + d);
      acc[1] += w * w;
    });
    for (int r = 0; r < kLaneRows; ++r) s.along[k * kLaneRows + r] = sums[0][r], s.norm[k * kLaneRows + r] = sums[1][r];
    if (!f.grad_w) continue;
    T h[kLaneRows], missing[kLaneRows], a[kLaneRows] = {};
    for (int64_t r = 0; r < rows; ++r) a[r] = f.saved[k * f.rows + row + r];
    for (int r = 0; r < kLaneRows; ++r) {
      h[r] = tanh_with_slope(a[r]).value;
      missing[r] = planar_layer(sums[0][r], sums[1][r], f.layers.constrain).missing;
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t d = 0; d < features; ++d) f.grad_w[((row + r) * f.layers.count + k) * features + d] = s.z[r * width + d];
    add_direction(p, rows, features, h, missing, s.z);
  }
}

template <class T>
void pull_layer(const PlanarBackward<T>& f, int64_t k, int64_t row, int64_t rows, const T* grad_log_det,
                const BackwardRoom<T>& s) {
  const Rows<T> p(f.layers, k, row);
  const int64_t width = padded<T>(f.features);
  const T *const along = s.along + k * kLaneRows, *const norm = s.norm + k * kLaneRows;
  T sums[2][kLaneRows], a[kLaneRows] = {}, by_stretch[kLaneRows], numerator[kLaneRows];
  lane_sums<2>(rows, f.features, sums, [&](auto access, int64_t r, int64_t d, Vec<T>* acc) {
    const Vec<T> grad = load(s.grad + r * width + d);
    acc[0] += access.get(p.u(r) + d) * grad;
    acc[1] += access.get(p.w(r) + d) * grad;
  });
  const bool constrain = f.layers.constrain, inverse = f.inverse;
  const TileLayer<T> layer(along, norm, constrain);
  LayerPull<T> pull;
  for (int64_t r = 0; r < rows; ++r) a[r] = f.saved[k * f.rows + row + r];
  for (int r = 0; r < kLaneRows; ++r) {
    pull.missing[r] = layer.missing[r];
    pull.a[r] = sums[0][r] + layer.missing[r] * sums[1][r];
    numerator[r] = constrain ? layer.stretch[r] : T(1);
  }
  const LayerLanes<T> lanes{layer.stretch, layer.log_stretch, numerator};
  pull_lanes<kLaneRows>(inverse, layer.careful, lanes, a, grad_log_det, pull.h, pull.a, by_stretch);
  for (int r = 0; r < kLaneRows; ++r) {
    const T across = pull.h[r] * (inverse ? -(sums[1][r] + pull.a[r] * norm[r]) : sums[1][r]);
    const PlanarPull<T> both = planar_pull(across, by_stretch[r], planar_layer(along[r], norm[r], constrain));
    pull.along[r] = both.along;
    pull.norm[r] = both.norm;
  }
  pull_rows(f, k, row, rows, pull, s.grad);
}

}  // namespace

template <class T>
void planar_per_row_forward(const PlanarForward<T>& f) {
  static thread_local Scratch scratch;
  for_tiles<T>(f.rows, f.features * f.layers.count, scratch, kLaneRows * padded<T>(f.features),
               [&](int64_t row, int64_t rows, T* room) { forward_tile(f, row, rows, room); });
}

template <class T>
void planar_per_row_backward(const PlanarBackward<T>& f) {
  static thread_local Scratch scratch;
  const int64_t count = f.layers.count;
  for_tiles<T>(f.rows, f.features * count, scratch, BackwardRoom<T>::size(f.features, count),
               [&](int64_t row, int64_t rows, T* room) {
                 const BackwardRoom<T> s(f.features, count, room);
                 T grad_log_det[kLaneRows] = {};
                 for (int64_t r = 0; r < rows && f.grad_log_det; ++r)
                   grad_log_det[r] = f.grad_log_det[(row + r) * f.grad_log_det_step];
                 copy_tile(f.grad_out, row, rows, f.features, s.grad);
                 walk_again(f, row, rows, s);
                 for (int64_t i = 0; i < count; ++i) pull_layer(f, f.inverse ? i : count - 1 - i, row, rows, grad_log_det, s);
                 if (f.grad_in) write_tile(s.grad, rows, f.features, f.grad_in + row * f.features);
               });
}

FASTGEN_INSTANTIATE_KERNEL(planar_per_row_forward, PlanarForward)
FASTGEN_INSTANTIATE_KERNEL(planar_per_row_backward, PlanarBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
