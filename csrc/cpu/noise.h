// Standard normals for consecutive elements of a sample.
#pragma once

#include <cstdint>

#include "cpu/word_lanes.h"
#include "philox.h"

namespace fastgen::cpu::FASTGEN_VARIANT {
namespace {

constexpr int kQuads = 32;

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
// the processor fetches what the next one reads while it computes the normals of this, and so long that what loops set up
// before they run does not show.
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

}  // namespace
}  // namespace fastgen::cpu::FASTGEN_VARIANT
