#include "bind/coupling_layout.h"

#include <string>

namespace fastgen {
namespace {

// Shorter runs than this, on average, are not worth a loop each.
constexpr int64_t kLongRun = 16;

}  // namespace

CouplingLayout::CouplingLayout(const Tensor& x, const Optional& places, int64_t parity) : parity_(parity) {
  image_ = x.dims == 4;
  if (x.dims != 2 && !image_)
    fail("x: expected vectors (B, D) or images (B, C, H, W), found " + std::to_string(x.dims) + " dimensions");
  rows_ = x.size(0);
  channels_ = x.size(1);
  if (image_) height_ = x.size(2), width_ = x.size(3);
  if (channels_ * height_ * width_ == 0) fail("x: expected at least one entry an item, found none");
  channels_inner_ = !image_ || x.step(1) < x.step(3);
  transformed_channels_ = channels_;
  if (places)
    expect_ranks(*places);
  else if (!image_)
    fail("places: expected a vector with x of two dimensions, found None");
  else if (parity != 0 && parity != 1)
    fail("parity: expected 0 or 1, found " + std::to_string(parity));
}

void CouplingLayout::expect_ranks(const Tensor& places) {
  expect_cpu(places, "places", DType::int32);
  expect_shape(places, "places", {channels_});
  expect_contiguous(places, "places");
  places_ = places.as<int32_t>();
  transformed_channels_ = 0;
  for (int64_t c = 0; c < channels_; ++c) {
    if (places_[c] != -1 && places_[c] != transformed_channels_) fail("places: expected ranks in order, or -1");
    transformed_channels_ += places_[c] != -1;
  }
}

void CouplingLayout::expect_size(const Tensor& t, const char* text, int64_t channels) const {
  if (image_)
    expect_shape(t, text, {rows_, channels, height_, width_});
  else
    expect_shape(t, text, {rows_, channels});
}

void CouplingLayout::expect_dense(const Tensor& t, const char* text, int64_t channels) const {
  expect_size(t, text, channels);
  Axes axes{true, false, t.step(1), image_ ? t.step(2) : 0, image_ ? t.step(3) : 0};
  if (rows_ > 0 && channels > 0 && (!dense(axes, channels) || (rows_ > 1 && t.step(0) != channels * height_ * width_)))
    fail(std::string(text) + ": expected a tensor without gaps in the order of x's memory");
}

void CouplingLayout::add(cpu::CouplingOperandName name, const Optional& t, const char* text, DType dtype,
                         bool compact_allowed) {
  if (!t) return;
  expect_cpu(*t, text, dtype);
  const bool compact = compact_allowed && places_ && t->dims > 1 && t->size(1) != channels_;
  expect_size(*t, text, compact ? transformed_channels_ : channels_);
  axes_[name] = {true, compact, t->step(1), image_ ? t->step(2) : 0, image_ ? t->step(3) : 0};
}

int64_t CouplingLayout::offset(const Axes& axes, const Entry& e) const {
  const int64_t channel = axes.compact ? places_[e.channel] : e.channel;
  return channel * axes.channel + e.h * axes.height + e.w * axes.width;
}

bool CouplingLayout::dense(const Axes& axes, int64_t channels) const {
  const int64_t inner = channels_inner_ ? channels : 1;
  return !axes.compact && (channels == 1 || axes.channel == (channels_inner_ ? 1 : height_ * width_)) &&
         (width_ == 1 || axes.width == inner) && (height_ == 1 || axes.height == width_ * inner);
}

template <class F>
void CouplingLayout::for_lines(const F& f) const {
  const int64_t lines = channels_inner_ ? width_ : height_;
  for (int64_t i = 0; i < (channels_inner_ ? height_ : channels_); ++i)
    for (int64_t j = 0; j < lines; ++j)
      if (!f(channels_inner_ ? Entry{0, i, j} : Entry{i, j, 0}, channels_inner_ ? channels_ : width_)) return;
}

CouplingLayout::Entry CouplingLayout::next(Entry e, int64_t n) const {
  (channels_inner_ ? e.channel : e.w) += n;
  return e;
}

bool CouplingLayout::continues(const cpu::CouplingRun& run, const cpu::CouplingRun& next) const {
  bool same = run.chosen == next.chosen;
  for (int name = 0; name < cpu::kCouplingOperands; ++name) {
    const Axes& axes = axes_[name];
    const int64_t step = channels_inner_ ? axes.channel : axes.width;
    same = same && (!axes.given || (!run.chosen && axes.compact) || next.at[name] == run.at[name] + run.count * step);
  }
  return same;
}

// False where they are short.
bool CouplingLayout::find_runs() {
  const int64_t size = channels_ * height_ * width_;
  const bool whole_lines = (places_ == nullptr) == channels_inner_;
  int64_t start = 0, rank = 0;
  for_lines([&](const Entry& first, int64_t length) {
    for (int64_t i = 0; i < length;) {
      const Entry e = next(first, i);
      cpu::CouplingRun run{start, whole_lines ? length : 1, rank, chosen(e), {}};
      while (i + run.count < length && chosen(next(first, i + run.count)) == run.chosen) ++run.count;
      for (int name = 0; name < cpu::kCouplingOperands; ++name) run.at[name] = axes_[name].given ? offset(axes_[name], e) : 0;
      i += run.count;
      start += run.count;
      rank += run.chosen ? run.count : 0;
      if (!runs_.empty() && continues(runs_.back(), run))
        runs_.back().count += run.count;
      else
        runs_.push_back(run);
    }
    return static_cast<int64_t>(runs_.size()) * kLongRun <= size;
  });
  return static_cast<int64_t>(runs_.size()) * kLongRun <= size;
}

void CouplingLayout::find_entries() {
  const int64_t size = channels_ * height_ * width_;
  chosen_.reserve(size);
  ranks_.reserve(size + 1);
  ranks_.push_back(0);
  for_lines([&](const Entry& first, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
      const bool yes = chosen(next(first, i));
      if (yes) index_.push_back(static_cast<int64_t>(chosen_.size()));
      chosen_.push_back(yes);
      ranks_.push_back(static_cast<int64_t>(index_.size()));
    }
    return true;
  });
  for (int name = 0; name < cpu::kCouplingOperands; ++name) {
    const Axes& axes = axes_[name];
    if (!axes.given || dense(axes, channels_)) continue;
    offsets_[name].reserve(size);
    for_lines([&](const Entry& first, int64_t length) {
      for (int64_t i = 0; i < length; ++i) {
        const Entry e = next(first, i);
        if (!axes.compact || chosen(e)) offsets_[name].push_back(offset(axes, e));
      }
      return true;
    });
  }
}

cpu::CouplingItem CouplingLayout::item() {
  const int64_t size = channels_ * height_ * width_, transformed = transformed_channels_ * height_ * width_;
  if (find_runs()) return {size, transformed, runs_.data(), static_cast<int64_t>(runs_.size()), nullptr, nullptr, nullptr};
  find_entries();
  return {size, transformed, nullptr, 0, chosen_.data(), ranks_.data(), index_.data()};
}

}  // namespace fastgen
