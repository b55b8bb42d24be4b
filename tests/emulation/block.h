// A block of threads on the CPU: every thread a fiber that runs until it waits at a barrier. An order in which waiting threads
// go on can be chosen: what changes with it lacks a barrier. A barrier that some threads never reach raises.
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
    while (step()) release();
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

 private:
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

  // Runs every thread that waits for nothing; false once all are done.
  bool step() {
    std::vector<int> threads(kThreads);
    std::iota(threads.begin(), threads.end(), 0);
    if (order_ == Order::backward) std::reverse(threads.begin(), threads.end());
    if (order_ == Order::random) std::shuffle(threads.begin(), threads.end(), random_);
    for (const int t : threads) {
      if (fibers_[t].waits != Waits::nothing) continue;
      current_ = t;
      running_ = this;
      resume(fibers_[t]);
    }
    return !all(0, kThreads, Waits::done);
  }

  bool all(int begin, int end, Waits what) const {
    return std::all_of(fibers_.begin() + begin, fibers_.begin() + end, [&](const Fiber& f) { return f.waits == what; });
  }

  void release() {
    bool released = all(0, kThreads, Waits::block);
    if (released)
      for (Fiber& fiber : fibers_) fiber.waits = Waits::nothing;
    for (int w = 0; w < kThreads; w += kWarp) {
      if (!all(w, w + kWarp, Waits::warp)) continue;
      for (int t = w; t < w + kWarp; ++t) fibers_[t].waits = Waits::nothing;
      released = true;
    }
    if (!released) throw std::runtime_error("a barrier that some threads do not reach");
  }

  static inline thread_local EmulatedBlock* running_ = nullptr;
  const Order order_;
  const std::function<void(EmulatedBlock&)> work_;
  std::vector<Fiber> fibers_;
  std::mt19937 random_{1};
  jmp_buf main_;
  int current_ = 0;
  double exchanged_[kThreads];
};

}  // namespace fastgen::cuda
