// Optimizer steps on many tensors in one launch: the table of their addresses travels as the kernel's
// argument, and a block looks up which part of which tensor is its own. Memory-bound: Adam moves 28 bytes a
// float parameter.
#include "core/launch.h"
#include "core/vector.h"
#include "ops/optimizer.h"

namespace fastarch::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlock = 4096;  // elements a block takes
constexpr int kTensors = 48;      // in a table: with five arrays each it stays within 4 KB of arguments
constexpr int kArrays = 5;

struct Table {
  void* pointers[kArrays][kTensors];
  int64_t sizes[kTensors];
  int first[kTensors + 1];  // the block at which each tensor begins
  int tensors;
};

// Rounds every operation on its own, as NumPy does: the compiler would fuse products into sums.
struct Math {
  __device__ __forceinline__ static float add(float a, float b) { return __fadd_rn(a, b); }
  __device__ __forceinline__ static float sub(float a, float b) { return __fsub_rn(a, b); }
  __device__ __forceinline__ static float mul(float a, float b) { return __fmul_rn(a, b); }
  __device__ __forceinline__ static float div(float a, float b) { return __fdiv_rn(a, b); }
  __device__ __forceinline__ static float sqrt(float a) { return __fsqrt_rn(a); }
  __device__ __forceinline__ static double add(double a, double b) { return __dadd_rn(a, b); }
  __device__ __forceinline__ static double sub(double a, double b) { return __dsub_rn(a, b); }
  __device__ __forceinline__ static double mul(double a, double b) { return __dmul_rn(a, b); }
  __device__ __forceinline__ static double div(double a, double b) { return __ddiv_rn(a, b); }
  __device__ __forceinline__ static double sqrt(double a) { return __dsqrt_rn(a); }
};

__device__ __forceinline__ bool aligned_to_packs(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;  // null is
}

// The tensor that block number `block` works on.
__device__ __forceinline__ int tensor_of(const Table& table, int block) {
  int low = 0, high = table.tensors;  // first[low] <= block < first[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first[middle] <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// The arrays of one tensor under SGD. at<V>(i) updates V elements.
template <class T>
struct SgdTensor {
  using Element = T;
  using Rule = SgdRule<T>;
  T *w, *b;
  const T* g;
  Rule rule;

  __device__ SgdTensor(const Table& table, int tensor, const Rule& rule)
      : w(static_cast<T*>(table.pointers[0][tensor])),
        b(static_cast<T*>(table.pointers[2][tensor])),
        g(static_cast<const T*>(table.pointers[1][tensor])),
        rule(rule) {}

  __device__ bool aligned() const {
    return aligned_to_packs(w) && aligned_to_packs(b) && aligned_to_packs(g);
  }

  template <int V>
  __device__ __forceinline__ void at(int64_t i) const {
    Pack<T, V> weight = load_pack<T, V>(w + i, 0), buffer{};
    const Pack<T, V> slope = load_pack<T, V>(g + i, 0);
    if (b && !rule.first) buffer = load_pack<T, V>(b + i, 0);
#pragma unroll
    for (int k = 0; k < V; ++k)
      weight.value[k] = rule.template operator()<Math>(weight.value[k], slope.value[k], &buffer.value[k]);
    store_pack(w + i, 0, weight);
    if (b) store_pack(b + i, 0, buffer);
  }
};

template <class T>
struct AdamTensor {
  using Element = T;
  using Rule = AdamRule<T>;
  T *w, *m, *v, *u;
  const T* g;
  Rule rule;

  __device__ AdamTensor(const Table& table, int tensor, const Rule& rule)
      : w(static_cast<T*>(table.pointers[0][tensor])),
        m(static_cast<T*>(table.pointers[2][tensor])),
        v(static_cast<T*>(table.pointers[3][tensor])),
        u(static_cast<T*>(table.pointers[4][tensor])),
        g(static_cast<const T*>(table.pointers[1][tensor])),
        rule(rule) {}

  __device__ bool aligned() const {
    return aligned_to_packs(w) && aligned_to_packs(m) && aligned_to_packs(v) && aligned_to_packs(u) &&
           aligned_to_packs(g);
  }

  template <int V>
  __device__ __forceinline__ void at(int64_t i) const {
    Pack<T, V> weight = load_pack<T, V>(w + i, 0), first = load_pack<T, V>(m + i, 0);
    Pack<T, V> second = load_pack<T, V>(v + i, 0), largest{};
    const Pack<T, V> slope = load_pack<T, V>(g + i, 0);
    if (u) largest = load_pack<T, V>(u + i, 0);
#pragma unroll
    for (int k = 0; k < V; ++k)
      weight.value[k] = rule.template operator()<Math>(weight.value[k], slope.value[k], &first.value[k],
                                                       &second.value[k], &largest.value[k]);
    store_pack(w + i, 0, weight);
    store_pack(m + i, 0, first);
    store_pack(v + i, 0, second);
    if (u) store_pack(u + i, 0, largest);
  }
};

template <class Tensor>
__global__ void __launch_bounds__(kThreads, 4)
    update_kernel(const __grid_constant__ Table table, typename Tensor::Rule rule, const double* words) {
  constexpr int V = Pack<typename Tensor::Element>::size;
  if (words) rule.read(words);
  const int number = tensor_of(table, blockIdx.x);
  const Tensor tensor(table, number, rule);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first[number]) * kBlock;
  const int64_t end = min(begin + kBlock, table.sizes[number]);
  const int64_t packed = tensor.aligned() ? begin + (end - begin) / V * V : begin;
  for (int64_t i = begin + threadIdx.x * V; i < packed; i += kThreads * V) tensor.template at<V>(i);
  for (int64_t i = packed + threadIdx.x; i < end; i += kThreads) tensor.template at<1>(i);
}

// Launches `kernel` on as few tables as the tensors fit into; a tensor of more than 2^31 blocks does not
// exist.
template <class Rule>
void for_tables(const char* name, const TensorList& tensors, const Rule& rule, const double* words,
                void (*kernel)(Table, Rule, const double*), Stream stream) {
  Table table{};
  const auto flush = [&] {
    if (table.tensors && table.first[table.tensors])
      launch(name, kernel, dim3(static_cast<unsigned>(table.first[table.tensors])), kThreads, 0, stream,
             table, rule, words);
    table = Table{};
  };
  for (size_t i = 0; i < tensors.sizes.size(); ++i) {
    if (tensors.sizes[i] == 0) continue;
    const int64_t blocks = (tensors.sizes[i] + kBlock - 1) / kBlock;
    if (table.tensors == kTensors || table.first[table.tensors] + blocks >= (int64_t{1} << 31)) flush();
    for (size_t a = 0; a < tensors.pointers.size(); ++a)
      table.pointers[a][table.tensors] = tensors.pointers[a][i];
    table.sizes[table.tensors] = tensors.sizes[i];
    table.first[table.tensors + 1] = static_cast<int>(table.first[table.tensors] + blocks);
    ++table.tensors;
  }
  flush();
}

}  // namespace

template <class T>
void sgd_update(const TensorList& tensors, const SgdStep& step, Stream stream) {
  for_tables("sgd_update", tensors, SgdRule<T>(step), step.words, update_kernel<SgdTensor<T>>, stream);
}

template <class T>
void adam_update(const TensorList& tensors, const AdamStep& step, Stream stream) {
  for_tables("adam_update", tensors, AdamRule<T>(step), step.words, update_kernel<AdamTensor<T>>, stream);
}

#define INSTANTIATE(T)                                                    \
  template void sgd_update<T>(const TensorList&, const SgdStep&, Stream); \
  template void adam_update<T>(const TensorList&, const AdamStep&, Stream);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace fastarch::cuda
