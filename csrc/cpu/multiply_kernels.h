// The register tile of the multiply and the transposition that packs its panels. Part of kernels.cpp.
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fastarch::cpu {
namespace {

// Registers hold the sums, one row of B and a broadcast of A: 8 x 3 of 32 registers, 6 x 2 of 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 8, kTileVectors = 3;
#else
constexpr int kTileRows = 6, kTileVectors = 2;
#endif

template <class T>
void activate_rows(T* c, int64_t step, int rows, int vectors, Activation kind) {
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < vectors; ++j) {
      T* at = c + i * step + j * kLanes<T>;
      store<T>(at, activate<T>(load(at), kind));
    }
}

// Unrolled, for sums stay in registers only where each of their indices is a constant.
template <class T, int ROWS, int VECTORS, class Body>
FASTARCH_INLINE void each_vector(Vector<T> (&sum)[ROWS][VECTORS], const Body& body) {
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < VECTORS; ++j) body(i, j, sum[i][j]);
}

template <class T, int ROWS, int VECTORS, bool OFFSETS>
void multiply_tile(const Tile<T>& tile) {
  constexpr int L = kLanes<T>;
  Vector<T> sum[ROWS][VECTORS] = {};
  const T* a[ROWS];
  for (int i = 0; i < ROWS; ++i) a[i] = tile.a[i];
  const T* b = tile.b;
  const int64_t a_step = tile.a_step, b_step = tile.b_step, length = tile.length;
  const int64_t* offset = tile.b_offset;
  for (int64_t segment = 0; segment < (OFFSETS ? 1 : tile.segments); ++segment) {
    int64_t at = 0;
    for (int64_t k = 0; k < length; ++k, at += a_step) {
      const T* row = OFFSETS ? b + offset[k] : b;
      Vector<T> values[VECTORS];
      for (int j = 0; j < VECTORS; ++j) values[j] = load(row + j * L);
      for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < VECTORS; ++j) sum[i][j] += a[i][at] * values[j];
      if (!OFFSETS) b += b_step;
    }
    for (int i = 0; i < ROWS; ++i) a[i] += at + tile.a_jump;
  }
  T* const c = tile.c;
  const int64_t c_step = tile.c_step;
  const bool relu = tile.kind == Activation::relu;
  if (tile.accumulate) each_vector<T>(sum, [&](int i, int j, auto& v) { v += load(c + i * c_step + j * L); });
  if (tile.bias) each_vector<T>(sum, [&](int i, int, auto& v) { v += tile.bias[i]; });
  if (tile.column_bias)
    each_vector<T>(sum, [&](int, int j, auto& v) { v += load(tile.column_bias + j * L); });
  if (relu) each_vector<T>(sum, [&](int, int, auto& v) { v = activate<T>(v, Activation::relu); });
  each_vector<T>(sum, [&](int i, int j, auto& v) { store<T>(c + i * c_step + j * L, v); });
  if (tile.kind != Activation::none && !relu) activate_rows(tile.c, tile.c_step, ROWS, VECTORS, tile.kind);
}

template <class T, bool OFFSETS, int ROWS, int VECTORS>
void multiply_sized(const Tile<T>& tile) {
  if constexpr (VECTORS > 1) {
    if (tile.vectors < VECTORS) return multiply_sized<T, OFFSETS, ROWS, VECTORS - 1>(tile);
  }
  if constexpr (ROWS > 1) {
    if (tile.rows < ROWS) return multiply_sized<T, OFFSETS, ROWS - 1, VECTORS>(tile);
  }
  multiply_tile<T, ROWS, VECTORS, OFFSETS>(tile);
}

template <class T>
void multiply(const Tile<T>& tile) {
  if (tile.b_offset) {
    multiply_sized<T, true, kTileRows, kTileVectors>(tile);
  } else {
    multiply_sized<T, false, kTileRows, kTileVectors>(tile);
  }
}

// 16 bytes at a time, whatever the set: a square block of them is transposed by two rounds of interleaving.
typedef float Quad __attribute__((vector_size(16)));
typedef double Pair __attribute__((vector_size(16)));

#if defined(__clang__) || __GNUC__ >= 12
#define FASTARCH_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define FASTARCH_SHUFFLE2(a, b, i, j) __builtin_shufflevector(a, b, i, j)
#else
typedef int32_t QuadIndex __attribute__((vector_size(16)));
typedef int64_t PairIndex __attribute__((vector_size(16)));
#define FASTARCH_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, QuadIndex{i, j, k, l})
#define FASTARCH_SHUFFLE2(a, b, i, j) __builtin_shuffle(a, b, PairIndex{i, j})
#endif

template <class V, class T>
FASTARCH_INLINE V load_block(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

FASTARCH_INLINE void transpose_block(const float* from, int64_t from_step, float* to, int64_t to_step) {
  const Quad a = load_block<Quad>(from), b = load_block<Quad>(from + from_step);
  const Quad c = load_block<Quad>(from + 2 * from_step), d = load_block<Quad>(from + 3 * from_step);
  const Quad ac_low = FASTARCH_SHUFFLE4(a, c, 0, 4, 1, 5), ac_high = FASTARCH_SHUFFLE4(a, c, 2, 6, 3, 7);
  const Quad bd_low = FASTARCH_SHUFFLE4(b, d, 0, 4, 1, 5), bd_high = FASTARCH_SHUFFLE4(b, d, 2, 6, 3, 7);
  const Quad out[4] = {
      FASTARCH_SHUFFLE4(ac_low, bd_low, 0, 4, 1, 5), FASTARCH_SHUFFLE4(ac_low, bd_low, 2, 6, 3, 7),
      FASTARCH_SHUFFLE4(ac_high, bd_high, 0, 4, 1, 5), FASTARCH_SHUFFLE4(ac_high, bd_high, 2, 6, 3, 7)};
  for (int k = 0; k < 4; ++k) __builtin_memcpy(to + k * to_step, &out[k], sizeof out[k]);
}

FASTARCH_INLINE void transpose_block(const double* from, int64_t from_step, double* to, int64_t to_step) {
  const Pair a = load_block<Pair>(from), b = load_block<Pair>(from + from_step);
  const Pair out[2] = {FASTARCH_SHUFFLE2(a, b, 0, 2), FASTARCH_SHUFFLE2(a, b, 1, 3)};
  for (int k = 0; k < 2; ++k) __builtin_memcpy(to + k * to_step, &out[k], sizeof out[k]);
}

template <class T>
void transpose(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t depth, int64_t columns,
               int64_t width) {
  constexpr int64_t kSide = 16 / sizeof(T);
  const int64_t whole_k = depth - depth % kSide, whole_j = columns - columns % kSide;
  for (int64_t k = 0; k < whole_k; k += kSide)
    for (int64_t j = 0; j < whole_j; j += kSide)
      transpose_block(from + j * from_step + k, from_step, to + k * to_step + j, to_step);
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = k < whole_k ? whole_j : 0; j < columns; ++j)
      to[k * to_step + j] = from[j * from_step + k];
    for (int64_t j = columns; j < width; ++j) to[k * to_step + j] = T(0);
  }
}

template <class T>
void gather(const T* source, const T* end, const int64_t* offset, int64_t rows, const Run* runs, int count,
            T* to, int64_t to_step, int64_t width) {
  constexpr int64_t L = kLanes<T>;
  // By whole vectors, which may overwrite what later runs write again: so much is read, and reached in a row.
  // The first `inside` runs do not reach beyond the row.
  int64_t readable = 0, reach = 0;
  int inside = 0;
  for (int r = 0; r < count; ++r) {
    const int64_t whole = (runs[r].length + L - 1) / L * L;
    if (runs[r].from + whole > readable) readable = runs[r].from + whole;
    reach = runs[r].to + whole;
    if (reach <= width) inside = r + 1;
  }
  const int64_t used = count ? runs[count - 1].to + runs[count - 1].length : 0;
  for (int64_t k = 0; k < rows; ++k, to += to_step) {
    const T* from = source + offset[k];
    // Where rows follow one another, one may reach into those to come.
    int vectors = to_step == width && reach <= (rows - k) * width ? count : inside;
    if (end - from < readable) vectors = 0;
    for (int r = 0; r < vectors; ++r)
      for (int64_t x = 0; x < runs[r].length; x += L)
        store<T>(to + runs[r].to + x, load(from + runs[r].from + x));
    for (int r = vectors; r < count; ++r) {
      int64_t x = 0;
      for (; x + L <= runs[r].length; x += L) store<T>(to + runs[r].to + x, load(from + runs[r].from + x));
      for (; x < runs[r].length; ++x) to[runs[r].to + x] = from[runs[r].from + x];
    }
    for (int64_t j = used; j < width; ++j) to[j] = T(0);
  }
}

// The usual strides are constants, for which the compiler finds the shuffles.
template <class T>
void pick(const T* __restrict__ from, int64_t stride, T* __restrict__ to, int64_t n) {
  switch (stride) {
    case 1: __builtin_memcpy(to, from, n * static_cast<int64_t>(sizeof(T))); return;
    case 2:
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * 2];
      return;
    case 3:
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * 3];
      return;
    case 4:
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * 4];
      return;
    default:
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
  }
}

}  // namespace
}  // namespace fastarch::cpu
