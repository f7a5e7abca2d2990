// One axis of pooling windows, sliding or adaptive: the inputs of window p, their places in it, and what a
// mean divides by.
#pragma once
#include <algorithm>

#include "ops/pool2d.h"

namespace fastarch::cpu {

struct Span {
  int begin, end;
};

struct SlidingBins {
  PoolAxis axis;
  bool count_padding = false;

  // Of windows without dilation.
  Span inputs(int p) const {
    const int start = p * axis.stride - axis.padding;
    return {std::max(start, 0), std::min(start + axis.kernel, axis.input)};
  }
  int count(int p) const {
    const int start = p * axis.stride - axis.padding;
    if (count_padding) return std::min(start + axis.kernel, axis.input + axis.padding) - start;
    return std::min(start + axis.kernel, axis.input) - std::max(start, 0);
  }
  int outputs() const { return axis.output; }
  int extent(int) const { return axis.kernel; }

  // Calls body(input, place) for the places of window p that fall on the input.
  template <class Body>
  void for_places(int p, const Body& body) const {
    const int start = p * axis.stride - axis.padding;
    const int first = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
    for (int r = first; r < axis.kernel && start + r * axis.dilation < axis.input; ++r)
      body(start + r * axis.dilation, r);
  }
};

struct AdaptiveBins {
  int input, output;

  Span inputs(int p) const {
    return {static_cast<int>(int64_t{p} * input / output),
            static_cast<int>((int64_t{p + 1} * input + output - 1) / output)};
  }
  int count(int p) const {
    const Span span = inputs(p);
    return span.end - span.begin;
  }
  int outputs() const { return output; }
  int extent(int p) const { return count(p); }

  template <class Body>
  void for_places(int p, const Body& body) const {
    const Span span = inputs(p);
    for (int h = span.begin; h < span.end; ++h) body(h, h - span.begin);
  }
};

}  // namespace fastarch::cpu
