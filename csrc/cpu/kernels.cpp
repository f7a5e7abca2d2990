// The table of inner loops for one instruction set: compiled once for each, with FASTARCH_ISA naming it.
// Nothing here may be emitted as a shared inline function (no standard library, no inline functions of other
// headers): the linker would keep one copy, which might be one that this processor cannot run.
#include "cpu/kernels.h"

#include "cpu/channel_kernels.h"
#include "cpu/depthwise_kernels.h"
#include "cpu/multiply_kernels.h"
#include "cpu/pixel_kernels.h"
#include "cpu/pointwise_kernels.h"
#include "cpu/pool_kernels.h"
#include "cpu/recurrent_kernels.h"
#include "cpu/som_kernels.h"
#include "cpu/winograd_kernels.h"

#define FASTARCH_JOIN_(a, b) a##b
#define FASTARCH_JOIN(a, b) FASTARCH_JOIN_(a, b)

namespace fastarch::cpu {
namespace {

template <class T>
constexpr Kernels<T> kTable = {kLanes<T>,
                               kTileRows,
                               kTileVectors,
                               multiply<T>,
                               stencil<T>,
                               dots<T>,
                               transpose<T>,
                               gather<T>,
                               pick<T>,
                               sum<T>,
                               activate_array<T>,
                               activate_backward_array<T>,
                               softmax_row<T>,
                               softmax_backward_row<T>,
                               learn<T>,
                               dropout<T>,
                               max_pool_plane<T, uint8_t>,
                               max_pool_plane<T, int32_t>,
                               avg_pool_plane<T>,
                               max_pixel<T, uint8_t>,
                               max_pixel<T, int32_t>,
                               max_pixel_backward<T, uint8_t>,
                               max_pixel_backward<T, int32_t>,
                               mean_pixel<T>,
                               mean_pixel_backward<T>,
                               channel_taps<T>,
                               channel_tap_dots<T>,
                               recurrent_gates<T>,
                               recurrent_gates_gradient<T>,
                               lowest_scores<T>,
                               square_distance<T>,
                               move_towards<T>,
                               kWinograd<T, 2>,
                               kWinograd<T, 4>,
                               largest_magnitudes<T>};

}  // namespace

extern const Kernels<float>* const FASTARCH_JOIN(float_kernels_, FASTARCH_ISA) = &kTable<float>;
extern const Kernels<double>* const FASTARCH_JOIN(double_kernels_, FASTARCH_ISA) = &kTable<double>;

}  // namespace fastarch::cpu
