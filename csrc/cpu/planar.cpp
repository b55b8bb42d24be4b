#include "cpu/planar.h"

#include <omp.h>

#include "cpu/planar_layers.h"
#include "cpu/row_tile.h"
#include "cpu/scratch.h"
#include "cpu/thin_product.h"

// Layers that all rows share, as two thin products around a recursion on one number per layer and row: with A = z w^T + b and
// G = direction w^T, a_k = A_k + sum_{j<k} tanh(a_j) G_jk, and the last z is the first one + tanh(a) direction. The inverse
// walks from the last layer to the first, with minus signs.
namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

// Rows of a tile: whole vectors and whole blocks of a product in every instruction set.
constexpr int kRows = 48;
// Multiplications a thread must have to be worth waking.
constexpr int64_t kGrain = 1 << 17;
// Tiles whose parameter gradients are summed before they join the rest, for accuracy.
constexpr int kTogether = 16;

int64_t tiles(int64_t rows) { return (rows + kRows - 1) / kRows; }

int threads_for(int64_t rows, int64_t features, int64_t count) {
  const int64_t wanted = 1 + rows * features * count / kGrain, most = least<int64_t>(tiles(rows), omp_get_max_threads());
  return static_cast<int>(most < 1 ? 1 : least(wanted, most));
}

// The layers as tiles read them: matrices padded to whole vectors with zeros.
template <class T>
struct Layers {
  int64_t count, features, lanes, width;  // lanes and width: count and features, padded
  T* w;                                   // (count, width)
  T* direction;                           // (count, width), negative for the inverse
  T* w_columns;                           // (features, lanes)
  T* direction_columns;                   // (features, lanes), or null
  T* gram;                                // (count, lanes): direction_j . w_k
  T* bias;                                // (lanes,)
  PlanarLayer<T>* layer;                  // (count,)
  bool* joined;                           // (count,): whether its det can be multiplied to those of the layers before

  static int64_t size(int64_t count, int64_t features) {
    const int64_t lanes = padded<T>(count), width = padded<T>(features);
    return 2 * count * width + 2 * features * lanes + count * lanes + lanes;
  }

  Layers(const PlanarParameters<T>& p, int64_t features, bool inverse, T* room, Scratch& plain)
      : count(p.count), features(features), lanes(padded<T>(count)), width(padded<T>(features)) {
    const auto take = [&](int64_t n) {
      T* const block = room;
      room += n;
      return block;
    };
    w = take(count * width);
    direction = take(count * width);
    w_columns = take(features * lanes);
    direction_columns = take(features * lanes);
    gram = take(count * lanes);
    bias = take(lanes);
    layer = plain.get<PlanarLayer<T>>(2 * count);
    joined = reinterpret_cast<bool*>(layer + count);
    read(p);
    const T sign = inverse ? T(-1) : T(1);
    for (int64_t i = 0; i < count * width; ++i) direction[i] *= sign;
    multiply_thin<T>(count, lanes, {features, direction, width, 1, w_columns, lanes, nullptr, 0, gram, lanes});
    join(p.constrain);
  }

 private:
  void read(const PlanarParameters<T>& p) {
    for (int64_t i = 0; i < features * lanes; ++i) w_columns[i] = direction_columns[i] = T(0);
    for (int64_t k = 0; k < lanes; ++k) bias[k] = k < count ? p.b[k * p.b_layer] : T(0);
    for (int64_t k = 0; k < count; ++k) {
      const T *const u = p.u + k * p.u_layer, *const v = p.w + k * p.w_layer;
      double along = 0, norm = 0;
      for (int64_t d = 0; d < features; ++d) {
        along += static_cast<double>(u[d]) * static_cast<double>(v[d]);
        norm += static_cast<double>(v[d]) * static_cast<double>(v[d]);
      }
      layer[k] = planar_layer<T>(static_cast<T>(along), static_cast<T>(norm), p.constrain);
      for (int64_t d = 0; d < width; ++d) {
        w[k * width + d] = d < features ? v[d] : T(0);
        direction[k * width + d] = d < features ? u[d] + layer[k].missing * v[d] : T(0);
      }
      for (int64_t d = 0; d < features; ++d) {
        w_columns[d * lanes + k] = v[d];
        direction_columns[d * lanes + k] = direction[k * width + d];
      }
    }
  }

  // A det lies between 1 and its stretch: products of dets that surely stay in range share one logarithm.
  void join(bool constrain) {
    T low = T(1), high = T(1);
    for (int64_t k = 0; k < count; ++k) {
      const T s = layer[k].stretch;
      low *= s < T(1) ? s : T(1);
      high *= s > T(1) ? s : T(1);
      joined[k] = constrain && low > T(1e-30) && high < T(1e30);
      if (!joined[k]) low = s < T(1) ? s : T(1), high = s > T(1) ? s : T(1);
    }
  }
};

// sum(log det) in the lanes of a tile.
template <class T>
class LogDets {
 public:
  void add(const Layers<T>& p, int64_t k, const T* a, const T* det) {
    const PlanarLayer<T>& layer = p.layer[k];
    const T limit = underflow_limit(layer.stretch);
    if (limit > T(0)) {
      for (int r = 0; r < kRows; ++r) total_[r] += det[r] < limit ? log_small_det(a[r], layer.log_stretch) : math::log(det[r]);
    } else {
      for (int r = 0; r < kRows; ++r) product_[r] *= math::abs(det[r]);
    }
  }
  // What has been multiplied up to here goes into the sum.
  void flush() {
    for (int r = 0; r < kRows; ++r) {
      total_[r] += math::log(product_[r]);
      product_[r] = T(1);
    }
  }
  LogDets() {
    for (int r = 0; r < kRows; ++r) total_[r] = T(0), product_[r] = T(1);
  }
  T operator[](int r) const { return total_[r]; }

 private:
  T total_[kRows], product_[kRows];
};

// to[:] = from[:] + sum over j in [begin, end) of x_j[:] g[j * step].
template <class T>
FASTGEN_INLINE void add_layers(const T* from, const T* x, const T* g, int64_t step, int64_t begin, int64_t end, T* to) {
  constexpr int N = kRows / kLanes<T>;
  Vec<T> acc[N];
#pragma GCC unroll 24
  for (int v = 0; v < N; ++v) acc[v] = load(from + v * kLanes<T>);
  for (int64_t j = begin; j < end; ++j) {
    const T factor = g[j * step];
#pragma GCC unroll 24
    for (int v = 0; v < N; ++v) acc[v] += factor * load(x + j * kRows + v * kLanes<T>);
  }
#pragma GCC unroll 24
  for (int v = 0; v < N; ++v) store(to + v * kLanes<T>, acc[v]);
}

template <class T>
struct ForwardRoom {
  T *z, *out, *rows, *lanes, *tanh;
  static int64_t size(const Layers<T>& p) { return kRows * (2 * p.width + 3 * p.lanes); }
  ForwardRoom(const Layers<T>& p, T* at)
      : z(at),
        out(z + kRows * p.width),
        rows(out + kRows * p.width),
        lanes(rows + kRows * p.lanes),
        tanh(lanes + kRows * p.lanes) {}
};

template <class T>
void forward_tile(const PlanarForward<T>& f, const Layers<T>& p, int64_t row, const ForwardRoom<T>& s) {
  const int64_t rows = least<int64_t>(kRows, f.rows - row);
  const RowTile<T> z = read_tile(f.z, row, rows, kRows, p.features, s.z);
  multiply_thin<T>(kRows, p.lanes, {p.features, z.data, z.ld, 1, p.w_columns, p.lanes, p.bias, 0, s.rows, p.lanes});
  transpose_thin(s.rows, p.lanes, kRows, p.lanes, s.lanes, int64_t{kRows});
  LogDets<T> total;
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t k = f.inverse ? p.count - 1 - i : i;
    T a[kRows], det[kRows];
    add_layers(s.lanes + k * kRows, s.tanh, p.gram + k, p.lanes, f.inverse ? k + 1 : 0, f.inverse ? p.count : k, a);
    const T stretch = p.layer[k].stretch;
    if (f.inverse) {
      for (int r = 0; r < kRows; ++r) det[r] = stretch;
      solve_lanes<T, kRows>(det, a, a);
    }
    T* const tanh = s.tanh + k * kRows;
    for (int r = 0; r < kRows; ++r) {
      const Tanh<T> h = tanh_with_slope(a[r]);
      tanh[r] = h.value;
      det[r] = planar_det(h, stretch);
    }
    if (f.saved)
      for (int64_t r = 0; r < rows; ++r) f.saved[k * f.rows + row + r] = a[r];
    if (!f.inverse && !p.joined[k]) total.flush();
    total.add(p, k, a, det);
    if (f.inverse && !p.joined[k]) total.flush();
  }
  total.flush();
  for (int64_t r = 0; r < rows; ++r) f.log_det[row + r] = f.inverse ? -total[r] : total[r];
  const bool direct = rows == kRows && p.width == p.features;
  T* const out = direct ? f.out + row * p.features : s.out;
  multiply_thin<T>(kRows, p.width, {p.count, s.tanh, 1, kRows, p.direction, p.width, z.data, z.ld, out, p.width});
  if (!direct) write_tile(out, rows, p.features, f.out + row * p.features);
}

}  // namespace

template <class T>
void planar_shared_forward(const PlanarForward<T>& f) {
  static thread_local Scratch matrices, plain, room;
  const int64_t count = f.layers.count;
  const Layers<T> p(f.layers, f.features, f.inverse, matrices.get<T>(Layers<T>::size(count, f.features)), plain);
  const int threads = threads_for(f.rows, f.features, count);
  const int64_t size = ForwardRoom<T>::size(p);
  T* const rooms = room.get<T>(threads * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const ForwardRoom<T> own(p, rooms + omp_get_thread_num() * size);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tiles(f.rows); ++i) forward_tile(f, p, i * kRows, own);
  }
  matrices.trim();
  room.trim();
}

namespace {

// What the gradients of the parameters are made of, summed over rows: tanh^T grad_out, grad_a^T z, tanh^T grad_a, and per
// layer, lane by lane, grad_a and what the stretch gets.
template <class T>
struct Sums {
  T *direction, *w, *pairs, *bias, *stretch;
  static int64_t size(const Layers<T>& p) { return p.count * (2 * p.width + p.lanes + 2 * kLanes<T>); }
  Sums(const Layers<T>& p, T* at)
      : direction(at),
        w(direction + p.count * p.width),
        pairs(w + p.count * p.width),
        bias(pairs + p.count * p.lanes),
        stretch(bias + p.count * kLanes<T>) {}
};

template <class T>
struct BackwardRoom {
  T *z, *grad, *out, *rows, *reach, *tanh, *sums, *total;
  static int64_t size(const Layers<T>& p) { return kRows * (3 * p.width + 3 * p.lanes) + 2 * Sums<T>::size(p); }
  BackwardRoom(const Layers<T>& p, T* at)
      : z(at),
        grad(z + kRows * p.width),
        out(grad + kRows * p.width),
        rows(out + kRows * p.width),
        reach(rows + kRows * p.lanes),
        tanh(reach + kRows * p.lanes),
        sums(tanh + kRows * p.lanes),
        total(sums + Sums<T>::size(p)) {}
};

template <class T>
FASTGEN_INLINE void add_lanes(const T* from, T* to) {
  Vec<T> sum{};
#pragma GCC unroll 24
  for (int v = 0; v < kRows; v += kLanes<T>) sum += load(from + v);
  store(to, load(to) + sum);
}

// reach[:count]: from direction . grad_out to the gradients of a.
template <class T>
void pull_tile(const PlanarBackward<T>& f, const Layers<T>& p, int64_t row, int64_t rows, const BackwardRoom<T>& s) {
  const Sums<T> sums(p, s.sums);
  T grad[kRows], by_stretch[kRows], a[kRows];
  for (int64_t r = 0; r < kRows; ++r)
    grad[r] = f.grad_log_det && r < rows ? f.grad_log_det[(row + r) * f.grad_log_det_step] : T(0);
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t k = f.inverse ? i : p.count - 1 - i;
    T* const reach = s.reach + k * kRows;
    add_layers(reach, s.reach, p.gram + k * p.lanes, 1, f.inverse ? 0 : k + 1, f.inverse ? k : p.count, reach);
    for (int64_t r = 0; r < rows; ++r) a[r] = f.saved[k * f.rows + row + r];
    for (int64_t r = rows; r < kRows; ++r) a[r] = T(0);
    const PlanarLayer<T>& own = p.layer[k];
    const SameLayer<T> layer{own.stretch, own.log_stretch, own.numerator};
    const bool careful = underflow_limit(own.stretch) > T(0);
    pull_lanes<kRows>(f.inverse, careful, layer, a, grad, s.tanh + k * kRows, reach, by_stretch);
    add_lanes(reach, sums.bias + k * kLanes<T>);
    add_lanes(by_stretch, sums.stretch + k * kLanes<T>);
  }
}

template <class T>
void backward_tile(const PlanarBackward<T>& f, const Layers<T>& p, int64_t row, bool parameters, const BackwardRoom<T>& s) {
  const int64_t rows = least<int64_t>(kRows, f.rows - row);
  const RowTile<T> grad = read_tile(f.grad_out, row, rows, kRows, p.features, s.grad);
  multiply_thin<T>(kRows, p.lanes,
                   {p.features, grad.data, grad.ld, 1, p.direction_columns, p.lanes, nullptr, 0, s.rows, p.lanes});
  transpose_thin(s.rows, p.lanes, kRows, p.lanes, s.reach, int64_t{kRows});
  pull_tile(f, p, row, rows, s);
  if (f.grad_in) {
    const bool direct = rows == kRows && p.width == p.features;
    T* const out = direct ? f.grad_in + row * p.features : s.out;
    multiply_thin<T>(kRows, p.width, {p.count, s.reach, 1, kRows, p.w, p.width, grad.data, grad.ld, out, p.width});
    if (!direct) write_tile(out, rows, p.features, f.grad_in + row * p.features);
  }
  if (!parameters) return;
  const Sums<T> sums(p, s.sums);
  const RowTile<T> z = read_tile(f.z, row, rows, kRows, p.features, s.z);
  transpose_thin(s.reach, kRows, p.lanes, kRows, s.rows, p.lanes);
  multiply_thin<T>(p.count, p.width,
                   {kRows, s.tanh, kRows, 1, grad.data, grad.ld, sums.direction, p.width, sums.direction, p.width});
  multiply_thin<T>(p.count, p.width, {kRows, s.reach, kRows, 1, z.data, z.ld, sums.w, p.width, sums.w, p.width});
  multiply_thin<T>(p.count, p.lanes, {kRows, s.tanh, kRows, 1, s.rows, p.lanes, sums.pairs, p.lanes, sums.pairs, p.lanes});
}

// The gradients of direction and w from the sums: layers see what those before them, and after, made of their input.
template <class T>
void join_layers(bool inverse, const Layers<T>& p, const Sums<T>& sums, T* pairs) {
  const int64_t n = p.count * p.lanes;
  // Of w: layer k sees tanh_j direction_j, j < k. `pairs` transposed.
  for (int64_t i = 0; i < n; ++i) pairs[i] = T(0);
  for (int64_t k = 0; k < p.count; ++k)
    for (int64_t j = 0; j < k; ++j) pairs[k * p.lanes + j] = sums.pairs[j * p.lanes + k];
  multiply_thin<T>(p.count, p.width, {p.count, pairs, p.lanes, 1, p.direction, p.width, sums.w, p.width, sums.w, p.width});
  // Of direction: layer j reaches grad_a_k w_k, k > j; in the inverse, k <= j.
  for (int64_t j = 0; j < p.count; ++j)
    for (int64_t k = 0; k < p.lanes; ++k)
      pairs[j * p.lanes + k] = k < p.count && (inverse ? k <= j : k > j) ? sums.pairs[j * p.lanes + k] : T(0);
  multiply_thin<T>(p.count, p.width,
                   {p.count, pairs, p.lanes, 1, p.w, p.width, sums.direction, p.width, sums.direction, p.width});
  if (!inverse) return;
  for (int64_t i = 0; i < p.count * p.width; ++i) sums.direction[i] = -sums.direction[i];
}

// From direction and stretch to u and w.
template <class T>
void store_gradients(const PlanarBackward<T>& f, const Layers<T>& p, const Sums<T>& sums) {
  for (int64_t k = 0; k < p.count; ++k) {
    const PlanarLayer<T>& layer = p.layer[k];
    const T *const u = f.layers.u + k * f.layers.u_layer, *const w = f.layers.w + k * f.layers.w_layer;
    const T *const direction = sums.direction + k * p.width, *const grad_w = sums.w + k * p.width;
    double across = 0, bias = 0, stretch = 0;
    for (int i = 0; i < kLanes<T>; ++i) {
      bias += static_cast<double>(sums.bias[k * kLanes<T> + i]);
      stretch += static_cast<double>(sums.stretch[k * kLanes<T> + i]);
    }
    for (int64_t d = 0; d < p.features; ++d) across += static_cast<double>(direction[d]) * static_cast<double>(w[d]);
    const PlanarPull<T> pull = planar_pull(static_cast<T>(across), static_cast<T>(stretch), layer);
    for (int64_t d = 0; d < p.features; ++d) {
      if (f.grad_u) f.grad_u[k * p.features + d] = direction[d] + pull.along * w[d];
      if (f.grad_w)
        f.grad_w[k * p.features + d] = grad_w[d] + layer.missing * direction[d] + pull.along * u[d] + pull.norm * w[d];
    }
    if (f.grad_b) f.grad_b[k] = static_cast<T>(bias);
  }
}

}  // namespace

template <class T>
void planar_shared_backward(const PlanarBackward<T>& f) {
  static thread_local Scratch matrices, plain, room;
  const int64_t count = f.layers.count;
  const Layers<T> p(f.layers, f.features, false, matrices.get<T>(Layers<T>::size(count, f.features)), plain);
  const bool parameters = f.grad_u || f.grad_w || f.grad_b;
  const int threads = threads_for(f.rows, f.features, count);
  const int64_t size = BackwardRoom<T>::size(p), n = Sums<T>::size(p), all = tiles(f.rows);
  T* const rooms = room.get<T>(threads * size);
  const BackwardRoom<T> first(p, rooms);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t thread = omp_get_thread_num();
    const BackwardRoom<T> own(p, rooms + thread * size);
    clear(own.sums, n);
    clear(own.total, n);
    const int64_t begin = all * thread / threads, end = all * (thread + 1) / threads;
    for (int64_t i = begin; i < end; ++i) {
      backward_tile(f, p, i * kRows, parameters, own);
      if ((i - begin) % kTogether == kTogether - 1) move_sums(own.sums, n, own.total);
    }
    move_sums(own.sums, n, own.total);
  }
  for (int t = 1; t < threads; ++t) move_sums(BackwardRoom<T>(p, rooms + t * size).total, n, first.total);
  if (parameters) {
    const Sums<T> sums(p, first.total);
    join_layers(f.inverse, p, sums, first.sums);
    store_gradients(f, p, sums);
  }
  matrices.trim();
  room.trim();
}

FASTGEN_INSTANTIATE_KERNEL(planar_shared_forward, PlanarForward)
FASTGEN_INSTANTIATE_KERNEL(planar_shared_backward, PlanarBackward)

}  // namespace fastgen::cpu::FASTGEN_VARIANT
