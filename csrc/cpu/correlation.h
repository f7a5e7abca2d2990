// Correlation of images with filters as products of the blocked multiply (gemm.h), over rearranged images
// (patches.h): what convolution and its input gradient have in common.
#pragma once
#include "cpu/patches.h"

namespace fastarch::cpu {

// A product of a correlation: some output pixels of every image, from all channels of the source.
template <class T>
struct Part {
  const T* weight;               // [groups][rows, depth], where row_step and k_step say nothing else
  std::vector<int64_t> offsets;  // [depth], into a group's source
  int64_t height, width;         // output pixels
  int64_t to, pitch, step;       // where they belong: to + p*pitch + q*step of a channel's plane
  int64_t largest_offset = 0;
  int64_t row_step = 0, k_step = 1;  // 0: depth
};

// y[n, row] = f(sum over source channels and taps + bias), with stride 1 over the rearranged source.
template <class T>
struct Correlation {
  const T* source;  // [images, groups * channels, plane]
  int64_t images, groups, channels, plane;
  PhaseLayout layout;  // of a plane
  T* target;           // [images, groups * rows, target_plane]
  int64_t rows, target_plane;
  const T* bias = nullptr;      // [groups * rows] or null
  const T* residual = nullptr;  // as target, added before the activation, or null
  Activation kind = Activation::none;
  std::vector<Part<T>> parts = {};

  void add(Part<T> part) {
    for (const int64_t offset : part.offsets) part.largest_offset = std::max(part.largest_offset, offset);
    parts.push_back(std::move(part));
  }

  void run() const {
    if (images == 0 || groups == 0 || rows == 0) return;
    int64_t work = 0, chunk = 1;
    for (const Part<T>& part : parts) {
      const int64_t pixels = part.height * part.width;
      work += pixels * rows * static_cast<int64_t>(part.offsets.size());
      if (is_flat(part)) chunk = std::max(chunk, ceil_div(kFlatColumns, pixels));
    }
    chunk = std::min(chunk, images);
    const int64_t tasks = ceil_div(images, chunk) * groups, threads = thread_count();
    constexpr int64_t kSmall = 200000;  // multiplications that are not worth a second thread
    const bool by_image = work * images * groups < kSmall || tasks >= 4 * threads || tasks % threads == 0;
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / groups * chunk;
        run_images({n, std::min(images, n + chunk)}, task % groups, by_image);
      }
    };
    if (by_image && work * images * groups >= kSmall) {
      parallel_for(tasks, 1, each);
    } else {
      each(0, tasks);  // on this thread, or on all threads for one task after the other
    }
  }

 private:
  // Of a product in flat order: enough for the last tile not to matter.
  static constexpr int64_t kFlatColumns = 768;

  // Rows of pixels that follow one another on both sides are one row.
  PixelOrder order_of(const Part<T>& part, int64_t count) const {
    // Pixels that see no tap read nothing: they may be more than the source has.
    const int64_t pitch = part.offsets.empty() ? part.width : layout.pitch;
    if (pitch != part.width || part.pitch != part.width || part.step != 1)
      return {count, part.height, part.width, pitch, false};
    return {count, 1, part.height * part.width, part.height * part.width, false};
  }

  // Whether pixels in flat order, packed, take less time than in wide order, read where they lie: copying,
  // against the columns that wide order computes in vain. In cycles for one k and one image.
  bool is_flat(const Part<T>& part) const {
    const PixelOrder order = order_of(part, 1);
    const int lanes = kernels<T>().lanes;
    const double vectors = static_cast<double>(order.height * order.width) / lanes;
    const double per_vector = 0.5 * static_cast<double>(rows), per_run = 2.5;
    const double wide =
        static_cast<double>(ceil_div((order.height - 1) * order.pitch + order.width, lanes)) * per_vector;
    const double runs = static_cast<double>(order.height * ceil_div(order.width, lanes)) + vectors / 3;
    return images > 1 && vectors * per_vector + runs * per_run < wide;
  }

  void run_images(Range image, int64_t group, bool this_thread) const {
    const int64_t step = groups * channels * plane;
    const T* from = source + image.begin * step + group * channels * plane;
    if (layout.in_place) return multiply(image, group, from, step, source + images * step, this_thread);
    const int64_t copied = channels * layout.channel_step;
    constexpr int64_t kSlack = 64;  // so that vectors may reach behind the last pixel
    const Scratch<T> copy(image.size() * copied + kSlack);
    const auto fill = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        layout.fill(from + i / channels * step + i % channels * plane, copy.get() + i * layout.channel_step);
    };
    if (this_thread) {
      fill(0, image.size() * channels);
    } else {
      parallel_for(image.size() * channels, 1, fill);
    }
    std::fill(copy.get() + image.size() * copied, copy.get() + image.size() * copied + kSlack, T(0));
    multiply(image, group, copy.get(), copied, copy.get() + image.size() * copied + kSlack, this_thread);
  }

  void multiply(Range image, int64_t group, const T* from, int64_t step, const T* end,
                bool this_thread) const {
    for (const Part<T>& part : parts) {
      PixelOrder order = order_of(part, image.size());
      order.wide = !is_flat(part);
      const int64_t depth = static_cast<int64_t>(part.offsets.size());
      // In wide order an image is a product of its own.
      const int64_t products = order.wide ? image.size() : 1;
      if (order.wide) order.images = 1;
      for (int64_t i = 0; i < products; ++i) {
        const int64_t first = ((image.begin + i) * groups + group) * rows;  // row of the target
        const Product<T, PatchReader<T>, PixelWriter<T>> product{
            rows,
            order.columns(),
            depth,
            {part.weight + group * rows * depth, part.row_step > 0 ? part.row_step : depth, part.k_step},
            {from + i * step, end, part.offsets.data(), part.largest_offset, step, order},
            {target + first * target_plane + part.to,
             residual ? residual + first * target_plane + part.to : nullptr, groups * rows * target_plane,
             target_plane, part.pitch, part.step, order},
            bias ? bias + group * rows : nullptr,
            kind};
        if (this_thread) {
          product.run();
        } else {
          product.run_parallel();
        }
      }
    }
  }
};

// One axis of the input gradient: the inputs first, first + stride, ... see the same taps, those r for which
// first + padding - r*dilation is a multiple of the stride, and each tap a line of outputs.
struct GradientPhase {
  int64_t first, count;
  std::vector<int64_t> taps = {};
  std::vector<size_t> lines = {};  // of the axis, for each tap
};

struct GradientAxis {
  std::vector<GradientPhase> phases;
  std::vector<PhaseAxis::Line> lines;

  GradientAxis(int64_t input, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
    for (int64_t first = 0; first < std::min(stride, input); ++first) {
      GradientPhase phase{first, ceil_div(input - first, stride)};
      for (int64_t r = 0; r < kernel; ++r) {
        const int64_t position = first + padding - r * dilation;
        if (position % stride != 0) continue;
        phase.taps.push_back(r);
        phase.lines.push_back(lines.size());
        lines.push_back({position / stride, phase.count});
      }
      phases.push_back(std::move(phase));
    }
  }
};

}  // namespace fastarch::cpu
