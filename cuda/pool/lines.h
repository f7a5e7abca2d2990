// Pooling of [planes, H, W, inner] by the windows that networks have, 3 x 3 and 2 x 2: a thread takes a block
// of kDown x kAcross neighbouring windows (forward) or of the inputs where they begin (backward), so that an
// input is loaded and widened once for all windows of a block. It moves 128 or 64 bits of a line where lines
// are whole ones, 128 bits of channels where those are last; else kAcross is 1, and neighbouring threads read
// neighbouring columns. Sums and comparisons run in general.h's order and give its bits.
#pragma once
#include <cstring>
#include <type_traits>

#include "pool/windows.h"

namespace fastarch::cuda::pool {

// Windows of K x K, S apart. Packed, block column j begins at input j * kColumns, its windows kPad before
// that, so that packs lie where moves need them. Otherwise kPad is 0 and blocks begin in the padding, as
// their rows always do. kLanes channels of each pixel are moved at once.
template <class T_, int K_, int S_, int kPad_, int kBytes, int kLanes_ = 1>
struct Block {
  using T = T_;
  static constexpr int K = K_, S = S_, kPad = kPad_, kLanes = kLanes_;
  static constexpr int kMove = kBytes / static_cast<int>(sizeof(T));
  static constexpr bool kPacked = kMove > 1;
  static constexpr int kColumns = kPacked ? kMove : S, kAcross = kColumns / S;
  static constexpr int kRun = kAcross * kLanes;  // neighbouring values of a result
  static constexpr int kRows = kPacked || kLanes > 1 ? 4 : 8, kDown = kRows / S;
  static_assert(kAcross * S == kColumns);

  // Of block number `column` or `row`: its first input.
  static FASTARCH_HOST_DEVICE int left(int column, int padding) {
    return column * kColumns - (kPacked ? 0 : padding);
  }
  static FASTARCH_HOST_DEVICE int top(int row, int padding) { return row * kRows - padding; }
};

// Splits a flat index over blocks [planes, rows, columns, inner / kLanes], which must be `counted` by an int.
struct Blocks {
  int64_t size;
  bool counted;
  int inner, rows, columns;
  FastDivider by_packs, by_columns, by_rows;

  Blocks(int64_t planes, int rows, int columns, int64_t inner, int lanes)
      : size(planes * rows * columns * (inner / lanes)),
        counted(size < (int64_t{1} << 31)),
        inner(static_cast<int>(inner)),
        rows(rows),
        columns(columns),
        by_packs(inner / lanes),
        by_columns(columns),
        by_rows(rows) {}

  struct Place {
    int plane, row, column, channel;
  };
  template <int kLanes>
  __device__ __forceinline__ Place place(int i) const {
    int pixel = i, channel = 0;
    if constexpr (kLanes > 1) {
      pixel = by_packs.quotient(i);
      channel = (i - pixel * static_cast<int>(by_packs.divisor())) * kLanes;
    }
    const int line = by_columns.quotient(pixel), plane = by_rows.quotient(line);
    return {plane, line - plane * rows, pixel - line * columns, channel};
  }
};

// N values from an aligned place on, or N times `outside`.
template <int N, class T, class C>
__device__ __forceinline__ void load_or(const T* from, bool exists, T outside, C* to) {
  // In words: halves would be selected one by one.
  using Word = std::conditional_t<N * sizeof(T) % 4 == 0, uint32_t, T>;
  constexpr int kWords = N * sizeof(T) / sizeof(Word);
  Pack<T, N> pack;
#pragma unroll
  for (int k = 0; k < N; ++k) pack.value[k] = outside;
  Pack<Word, kWords> words;
  std::memcpy(&words, &pack, sizeof(pack));
  if (exists) words = load_pack<Word, kWords>(reinterpret_cast<const Word*>(from), 0);
  std::memcpy(&pack, &words, sizeof(pack));
#pragma unroll
  for (int k = 0; k < N; ++k) to[k] = widened(pack.value[k]);
}

// From pixel `first` of a line on: first - kBefore to first + N + kAfter, `outside` where the line has none;
// of each kLanes values, the next pixel's `inner` further on.
template <int kBefore, int N, int kAfter, class B, class T, class C>
__device__ __forceinline__ void load_line(const T* from, bool exists, int first, int width, int inner,
                                          T outside, C* to) {
  const auto load = [&](int j) {
    const bool inside = exists && static_cast<unsigned>(first + j) < static_cast<unsigned>(width);
    load_or<B::kLanes>(from + j * inner, inside, outside, to + (kBefore + j) * B::kLanes);
  };
#pragma unroll
  for (int j = -kBefore; j < 0; ++j) load(j);
  if constexpr (B::kPacked) {
    load_or<N>(from, exists, outside, to + kBefore);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) load(j);
  }
#pragma unroll
  for (int j = N; j < N + kAfter; ++j) load(j);
}

// The first of equal values, but the last NaN; the same whether places come one by one or line by line.
template <class C>
struct Largest {
  C best;
  int place;

  __device__ __forceinline__ void add(C value, int at) {
    if (value > best || value != value) {
      best = value;
      place = at;
    }
  }
};

template <class T>
struct MaxForward {
  using C = Compute<T>;
  using Window = Largest<C>;
  T* y;
  uint8_t* argmax;

  static __device__ __forceinline__ T outside() { return narrow<T>(-INFINITY); }
  // What K neighbouring pixels are to every window that has them as its line r.
  template <class B>
  static __device__ __forceinline__ Window line(const C* value) {
    Window result{value[0], 0};
#pragma unroll
    for (int s = 1; s < B::K; ++s) result.add(value[s * B::kLanes], s);
    return result;
  }
  template <class B>
  static __device__ __forceinline__ void add(Window& window, const Window& line, int r) {
    if (r == 0)
      window = line;
    else
      window.add(line.best, r * B::K + line.place);
  }
  // Windows of nothing but -inf, whose place is the first inside the image: padding may have won.
  template <class B>
  static __device__ __forceinline__ void finish(Window (&window)[B::kDown][B::kRun], int top, int left) {
    C least = INFINITY;
#pragma unroll
    for (int k = 0; k < B::kDown * B::kRun; ++k) least = min(least, window[k / B::kRun][k % B::kRun].best);
    if (least != -INFINITY) return;
#pragma unroll
    for (int d = 0; d < B::kDown; ++d)
#pragma unroll
      for (int k = 0; k < B::kRun; ++k)
        if (window[d][k].best == -INFINITY)
          window[d][k].place = max(0, -top - d * B::S) * B::K + max(0, B::kPad - left - k / B::kLanes * B::S);
  }
  template <class B>
  __device__ __forceinline__ void store(int64_t at, const Window* window, int, int,
                                        const SlidingWindows&) const {
    C best[B::kRun];
    int place[B::kRun];
#pragma unroll
    for (int k = 0; k < B::kRun; ++k) best[k] = window[k].best, place[k] = window[k].place;
    store_run<B::kRun>(y + at, best);
    if (argmax) store_run<B::kRun>(argmax + at, place);
  }
};

template <class T>
struct AverageForward {
  using C = Compute<T>;
  using Window = C;
  T* y;

  static __device__ __forceinline__ T outside() { return T{}; }
  template <class B>
  static __device__ __forceinline__ const C* line(const C* value) {
    return value;
  }
  template <class B>
  static __device__ __forceinline__ void add(Window& window, const C* line, int r) {
    if (r == 0) window = 0;
#pragma unroll
    for (int s = 0; s < B::K; ++s) window += line[s * B::kLanes];
  }
  template <class B>
  static __device__ __forceinline__ void finish(Window (&)[B::kDown][B::kRun], int, int) {}
  template <class B>
  __device__ __forceinline__ void store(int64_t at, const Window* window, int height, int q,
                                        const SlidingWindows& columns) const {
    C mean[B::kRun];
#pragma unroll
    for (int k = 0; k < B::kRun; ++k)
      mean[k] = window[k] / static_cast<C>(height * columns.count(q + k / B::kLanes));
    store_run<B::kRun>(y + at, mean);
  }
};

template <class B, class Op>
__global__ void lines_forward_kernel(const typename B::T* __restrict__ x, Op op, SlidingWindows rows,
                                     SlidingWindows columns, Blocks blocks) {
  using T = typename B::T;
  using C = Compute<T>;
  constexpr int K = B::K, S = B::S, kAfter = K - S - B::kPad > 0 ? K - S - B::kPad : 0;
  const int height = rows.inputs(), width = columns.inputs(), lines = rows.outputs(),
            line = columns.outputs();
  const int inner = B::kLanes == 1 ? 1 : blocks.inner;
  for (int64_t i = global_thread(); i < blocks.size; i += grid_threads()) {
    const auto at = blocks.template place<B::kLanes>(static_cast<int>(i));
    const int p = at.row * B::kDown, q = at.column * B::kAcross;
    const int top = B::top(at.row, rows.padding()), left = B::left(at.column, columns.padding());
    const T* const from =
        x + int64_t{at.plane} * (height * width * inner) + ((top * width + left) * inner + at.channel);
    typename Op::Window window[B::kDown][B::kRun];
#pragma unroll
    for (int h = 0; h < (B::kDown - 1) * S + K; ++h) {
      const bool exists = static_cast<unsigned>(top + h) < static_cast<unsigned>(height);
      C value[(B::kPad + B::kColumns + kAfter) * B::kLanes];
      load_line<B::kPad, B::kColumns, kAfter, B>(from + h * width * inner, exists, left, width, inner,
                                                 Op::outside(), value);
#pragma unroll
      for (int k = 0; k < B::kRun; ++k) {
        const auto found = Op::template line<B>(value + k / B::kLanes * S * B::kLanes + k % B::kLanes);
#pragma unroll
        for (int d = 0; d < B::kDown; ++d)
          if (h >= d * S && h < d * S + K) Op::template add<B>(window[d][k], found, h - d * S);
      }
    }
    Op::template finish<B>(window, top, left);
    const int64_t to = int64_t{at.plane} * (lines * line * inner) + ((p * line + q) * inner + at.channel);
#pragma unroll
    for (int d = 0; d < B::kDown; ++d)
      if (p + d < lines)
        op.template store<B>(to + d * line * inner, window[d], rows.count(p + d), q, columns);
  }
}

template <class T>
struct MaxBackward {
  using C = Compute<T>;
  const T* dy;
  const uint8_t* argmax;

  template <int N>
  struct Line {
    C slope[N];
    int place[N];
    __device__ __forceinline__ void give(int k, int at, C& sum) const {
      if (place[k] == at) sum += slope[k];
    }
  };
  // Of windows q - kBefore to q + kAcross + kAfter of line p; window q is number `at`.
  template <int kBefore, int kAfter, class B>
  __device__ __forceinline__ auto line(int64_t at, int p, int q, int inner, const SlidingWindows& rows,
                                       const SlidingWindows& columns) const {
    constexpr int N = B::kAcross;
    Line<(kBefore + N + kAfter) * B::kLanes> result;
    const bool exists = static_cast<unsigned>(p) < static_cast<unsigned>(rows.outputs());
    const int width = columns.outputs();
    load_line<kBefore, N, kAfter, B>(dy + at, exists, q, width, inner, T{}, result.slope);
    load_line<kBefore, N, kAfter, B>(argmax + at, exists, q, width, inner, uint8_t{255}, result.place);
    return result;
  }
};

template <class T>
struct AverageBackward {
  using C = Compute<T>;
  const T* dy;

  template <int N>
  struct Line {
    C share[N];
    __device__ __forceinline__ void give(int k, int, C& sum) const { sum += share[k]; }
  };
  template <int kBefore, int kAfter, class B>
  __device__ __forceinline__ auto line(int64_t at, int p, int q, int inner, const SlidingWindows& rows,
                                       const SlidingWindows& columns) const {
    constexpr int N = (kBefore + B::kAcross + kAfter) * B::kLanes;
    Line<N> result;
    const bool exists = static_cast<unsigned>(p) < static_cast<unsigned>(rows.outputs());
    load_line<kBefore, B::kAcross, kAfter, B>(dy + at, exists, q, columns.outputs(), inner, T{},
                                              result.share);
    const int height = rows.count(p);
#pragma unroll
    for (int k = 0; k < N; ++k)
      result.share[k] /= static_cast<C>(max(1, height * columns.count(q - kBefore + k / B::kLanes)));
    return result;
  }
};

template <class B, class Op>
__global__ void lines_backward_kernel(Op op, typename B::T* __restrict__ dx, SlidingWindows rows,
                                      SlidingWindows columns, Blocks blocks) {
  using T = typename B::T;
  using C = Compute<T>;
  // How many windows that begin before or after a block's reach into it.
  constexpr int K = B::K, S = B::S, kAbove = (K - 1) / S, kBefore = (K - 1 - B::kPad) / S,
                kAfter = (B::kColumns - 1 + B::kPad) / S - (B::kAcross - 1);
  const int height = rows.inputs(), width = columns.inputs(), lines = rows.outputs(),
            line = columns.outputs();
  const int inner = B::kLanes == 1 ? 1 : blocks.inner;
  for (int64_t i = global_thread(); i < blocks.size; i += grid_threads()) {
    const auto at = blocks.template place<B::kLanes>(static_cast<int>(i));
    const int p = at.row * B::kDown, q = at.column * B::kAcross;
    const int top = B::top(at.row, rows.padding()), left = B::left(at.column, columns.padding());
    const int64_t from = int64_t{at.plane} * (lines * line * inner) + ((p * line + q) * inner + at.channel);
    C sum[B::kRows][B::kColumns * B::kLanes] = {};
#pragma unroll
    for (int d = -kAbove; d < B::kDown; ++d) {
      const auto found =
          op.template line<kBefore, kAfter, B>(from + d * line * inner, p + d, q, inner, rows, columns);
#pragma unroll
      for (int h = 0; h < B::kRows; ++h)
#pragma unroll
        for (int a = -kBefore; a < B::kAcross + kAfter; ++a)
#pragma unroll
          for (int w = 0; w < B::kColumns; ++w) {
            const int r = h - d * S, s = w + B::kPad - a * S;
            if (r < 0 || r >= K || s < 0 || s >= K) continue;
#pragma unroll
            for (int k = 0; k < B::kLanes; ++k)
              found.give((kBefore + a) * B::kLanes + k, r * K + s, sum[h][w * B::kLanes + k]);
          }
    }
    T* const to =
        dx + int64_t{at.plane} * (height * width * inner) + ((top * width + left) * inner + at.channel);
#pragma unroll
    for (int h = 0; h < B::kRows; ++h) {
      if (static_cast<unsigned>(top + h) >= static_cast<unsigned>(height)) continue;
      if constexpr (B::kPacked) {
        store_run<B::kColumns>(to + h * width, sum[h]);
      } else {
#pragma unroll
        for (int w = 0; w < B::kColumns; ++w)
          if (static_cast<unsigned>(left + w) < static_cast<unsigned>(width))
            store_run<B::kLanes>(to + (h * width + w) * inner, sum[h] + w * B::kLanes);
      }
    }
  }
}

// Calls body<Block>() and returns what it does; false for windows that no block is made for. aligned: whether
// packs may be moved.
template <class T, class Body>
bool dispatch_block(const Pool2d& pool, bool aligned, const Body& body) {
  const PoolAxis &rows = pool.rows, &columns = pool.columns;
  // Every window has an input; an int counts a plane and the blocks that stick out of it.
  const auto usual = [](const PoolAxis& a) {
    return a.dilation == 1 && a.padding <= a.kernel / 2 && a.output >= 1 &&
           (a.output - 1) * a.stride - a.padding < a.input;
  };
  const int64_t inner = pool.inner, most = (int64_t{1} << 31) / inner;
  const auto counted = [&](int64_t height, int64_t width) { return height * width < most; };
  constexpr int kPack = Pack<T>::size;
  const bool lanes = inner % kPack == 0;
  if ((inner > 1 && !(lanes && aligned)) || rows.kernel != columns.kernel || rows.stride != columns.stride ||
      !usual(rows) || !usual(columns) || !counted(rows.input + int64_t{8}, columns.input + int64_t{8}) ||
      !counted(rows.output + int64_t{8}, columns.output + int64_t{8}))
    return false;

  const auto of = [&](int kernel, int stride) {
    return columns.kernel == kernel && columns.stride == stride;
  };
  const auto packed = [&]<int K, int S, int kPad>() {
    if (!of(K, S) || inner > 1 || !aligned || columns.padding != kPad || columns.input != S * columns.output)
      return false;
    const size_t bytes = columns.input * sizeof(T);
    if (bytes % 16 == 0) return body.template operator()<Block<T, K, S, kPad, 16>>();
    return bytes % 8 == 0 && body.template operator()<Block<T, K, S, kPad, 8>>();
  };
  const auto other = [&]<int K, int S>() {
    if (!of(K, S)) return false;
    if (inner > 1) return body.template operator()<Block<T, K, S, 0, sizeof(T), kPack>>();
    return body.template operator()<Block<T, K, S, 0, sizeof(T)>>();
  };
  return packed.template operator()<3, 2, 0>() || packed.template operator()<3, 2, 1>() ||
         packed.template operator()<3, 1, 1>() || packed.template operator()<2, 2, 0>() ||
         other.template operator()<3, 2>() || other.template operator()<3, 1>() ||
         other.template operator()<2, 2>();
}

}  // namespace fastarch::cuda::pool
