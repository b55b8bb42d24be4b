// The work of one thread block, and the shared memory it takes: what a launch on a device and its emulation in a test have in
// common.
#pragma once

#include "cuda/autoregressive_gradient.h"
#include "cuda/autoregressive_inverse.h"
#include "cuda/autoregressive_sample.h"
#include "cuda/autoregressive_solver.h"

namespace fastgen::cuda {

template <class Block, int R, class Call>
TileSolver<Block, R, Call> tile_type(const Call&);
template <class Block, int R, class T, class W>
TileGradient<Block, R, AutoregressiveInverseBackward<T, W>> tile_type(const AutoregressiveInverseBackward<T, W>&);

template <class Block, int R, class Call>
using TileOf = decltype(tile_type<Block, R>(std::declval<const Call&>()));

// What is read four values at a time is aligned to four of them.
constexpr int kAlignment = 32;
constexpr int kLinkBytes = (kMaxLayers * sizeof(Link) + kAlignment - 1) / kAlignment * kAlignment;

template <class Block, int R, class Call>
int64_t shared_bytes(const Call& a, bool in_shared) {
  return kLinkBytes + (TileOf<Block, R, Call>::kShared + (in_shared ? a.units * R : 0)) * sizeof(typename Call::Value);
}

// The tiles of thread block `index` of `blocks`.
template <int R, bool kInShared, class Block, class Call>
FASTGEN_DEVICE void solve_tiles(Block& block, const Call& a, unsigned char* shared, typename Call::Value* scratch,
                                int64_t index, int64_t blocks) {
  using Tile = TileOf<Block, R, Call>;
  using T = typename Call::Value;
  T* const own = reinterpret_cast<T*>(shared + kLinkBytes);
  Tile tile(block, a, kInShared ? own + Tile::kShared : scratch + index * a.units * R, own, reinterpret_cast<Link*>(shared));
  for (int64_t first = index * R; first < a.rows; first += blocks * R)
    tile.solve(first, static_cast<int>(a.rows - first < R ? a.rows - first : R));
}

}  // namespace fastgen::cuda
