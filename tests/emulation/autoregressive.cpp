// The CUDA kernels of autoregressive networks behind their own Python boundary, on CPU tensors.

#include "bind/bind.h"
#include "block.h"
#include "cuda/autoregressive_tiles.h"

namespace fastgen::cuda {
namespace {

// What a device would choose by itself.
struct Choice {
  int rows = 32;
  bool in_shared = true;
  int64_t blocks = 2;
  Order order = Order::forward;
} choice;

template <int R, bool kInShared, class Call>
void run_blocks(const Call& a, int64_t blocks, typename Call::Value* scratch) {
  const int64_t bytes = shared_bytes<EmulatedBlock, R>(a, kInShared);
  for (int64_t index = 0; index < blocks; ++index) {
    // Of exactly the launch's size, and NaN where nobody wrote.
    std::unique_ptr<unsigned char[]> room(new unsigned char[bytes + kAlignment]);
    unsigned char* shared = room.get() + (kAlignment - reinterpret_cast<uintptr_t>(room.get()) % kAlignment) % kAlignment;
    std::fill(shared, shared + bytes, 0xff);
    EmulatedBlock(choice.order,
                  [&](EmulatedBlock& block) { solve_tiles<R, kInShared>(block, a, shared, scratch, index, blocks); });
  }
}

template <int R, class Call>
void run_rows(const Call& a, const Tiling& tiling, typename Call::Value* scratch) {
  tiling.in_shared ? run_blocks<R, true>(a, tiling.blocks, scratch) : run_blocks<R, false>(a, tiling.blocks, scratch);
}

}  // namespace

template <class Call>
Tiling tiling_of(const Call& a) {
  return {choice.rows, choice.in_shared, choice.blocks, choice.in_shared ? 0 : choice.blocks * choice.rows * a.units};
}

template <class Call>
void run(const Call& a, const Tiling& tiling, typename Call::Value* scratch, void*) {
  if (tiling.rows == 32) return run_rows<32>(a, tiling, scratch);
  if (tiling.rows == 16) return run_rows<16>(a, tiling, scratch);
  run_rows<8>(a, tiling, scratch);
}

FASTGEN_INSTANTIATE_CALLS(AutoregressiveInverseForward)
FASTGEN_INSTANTIATE_CALLS(AutoregressiveInverseBackward)
FASTGEN_INSTANTIATE_CALLS(AutoregressiveSample)

}  // namespace fastgen::cuda

PYBIND11_MODULE(_emulated, m) {
  fastgen::bind_autoregressive_inverse_cuda(m);
  fastgen::bind_autoregressive_sample_cuda(m);
  m.def("choose", [](int rows, bool in_shared, int64_t blocks, int order) {
    fastgen::cuda::choice = {rows, in_shared, blocks, static_cast<fastgen::cuda::Order>(order)};
  });
}
