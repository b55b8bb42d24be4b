// A block of threads on the CPU: every thread a fiber that runs until it waits at a barrier, every warp as far ahead of the
// others as the barriers let it. An order in which waiting threads go on can be chosen: what changes with it lacks a barrier. A
// barrier that some threads never reach raises.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda/block.h"

namespace fastgen::cuda {

enum class Order { forward, backward, random };

class EmulatedBlock {
 public:
  // Runs `work` in every thread of one block.
  EmulatedBlock(Order order, std::function<void(EmulatedBlock&)> work)
      : order_(order), work_(std::move(work)), fibers_(kThreads) {
    for (int t = 0; t < kThreads; ++t) {
      Fiber& fiber = fibers_[t];
      fiber.stack.reset(new char[kStack]);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      makecontext(&fiber.context, reinterpret_cast<void (*)()>(&enter), 0);
    }
    while (step()) continue;
  }

  int thread() const { return current_; }
  void sync() { wait(Waits::block); }
  void sync_warp() { wait(Waits::warp); }
  template <class T>
  T sum(T value, int lanes) {
    for (int other = lanes / 2; other; other /= 2) {
      exchanged_[current_] = value;
      sync_warp();
      value += static_cast<T>(exchanged_[current_ ^ other]);
      sync_warp();
    }
    return value;
  }
  // As the instruction has it: its operands lose what tf32 has no bits for, its sums are of 8 products at once.
  void multiply_add(float* sums, const float (&rows)[4], const float (&weights)[2]) {
    Fragments& own = fragments_[current_];
    for (int i = 0; i < 4; ++i) own.rows[i] = truncated(rows[i]);
    for (int i = 0; i < 2; ++i) own.weights[i] = truncated(weights[i]);
    sync_warp();
    const Fragments* const warp = fragments_ + current_ / kWarp * kWarp;
    const int lane = current_ % kWarp;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, unit = lane % 4 * 2 + i % 2;
      double sum = sums[i];
      for (int k = 0; k < 8; ++k)
        sum += double(warp[row % 8 * 4 + k % 4].rows[row / 8 + k / 4 * 2]) * warp[unit * 4 + k % 4].weights[k / 4];
      sums[i] = static_cast<float>(sum);
    }
    sync_warp();
  }

 private:
  struct Fragments {
    float rows[4], weights[2];
  };
  static float truncated(float x) { return math::bit_cast<float>(math::bit_cast<uint32_t>(x) & ~uint32_t(0x1fff)); }

  static constexpr size_t kStack = 256 * 1024;
  enum class Waits { nothing, warp, block, done };
  struct Fiber {
    ucontext_t context;  // to begin with; jumps, which need no system call, go on from there
    jmp_buf jump;
    bool begun = false;
    std::unique_ptr<char[]> stack;
    Waits waits = Waits::nothing;
  };

  static void enter() {
    EmulatedBlock& block = *running_;
    block.work_(block);
    block.wait(Waits::done);
  }

  void wait(Waits for_what) {
    Fiber& fiber = fibers_[current_];
    fiber.waits = for_what;
    if (!_setjmp(fiber.jump)) _longjmp(main_, 1);
  }

  // Runs a thread until it waits.
  void resume(Fiber& fiber) {
    if (_setjmp(main_)) return;
    if (fiber.begun) _longjmp(fiber.jump, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  }

  // 0, 1, ..., n - 1, in the order in which threads go on.
  std::vector<int> ordered(int n) {
    std::vector<int> numbers(n);
    std::iota(numbers.begin(), numbers.end(), 0);
    if (order_ == Order::backward) std::reverse(numbers.begin(), numbers.end());
    if (order_ == Order::random) std::shuffle(numbers.begin(), numbers.end(), random_);
    return numbers;
  }

  // Runs one warp after the other, each as far as it comes without the others; false once all are done.
  bool step() {
    for (const int w : ordered(kWarps)) {
      Fiber* const warp = &fibers_[w * kWarp];
      do {
        for (const int lane : ordered(kWarp)) {
          if (warp[lane].waits != Waits::nothing) continue;
          current_ = w * kWarp + lane;
          running_ = this;
          resume(warp[lane]);
        }
      } while (release(warp, kWarp, Waits::warp));
    }
    if (release(fibers_.data(), kThreads, Waits::block)) return true;
    if (all(fibers_.data(), kThreads, Waits::done)) return false;
    throw std::runtime_error("a barrier that some threads do not reach");
  }

  static bool all(const Fiber* fibers, int n, Waits what) {
    return std::all_of(fibers, fibers + n, [&](const Fiber& f) { return f.waits == what; });
  }

  // Lets those go on that wait for each other; false while one is missing.
  static bool release(Fiber* fibers, int n, Waits what) {
    if (!all(fibers, n, what)) return false;
    for (int i = 0; i < n; ++i) fibers[i].waits = Waits::nothing;
    return true;
  }

  static inline thread_local EmulatedBlock* running_ = nullptr;
  const Order order_;
  const std::function<void(EmulatedBlock&)> work_;
  std::vector<Fiber> fibers_;
  std::mt19937 random_{1};
  jmp_buf main_;
  int current_ = 0;
  double exchanged_[kThreads];
  Fragments fragments_[kThreads];
};

}  // namespace fastgen::cuda
