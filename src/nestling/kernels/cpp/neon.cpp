// The kernels for NEON with dot products (Arm from Cortex-A55 and Neoverse N1 on, all of Apple's).
#include "kernels.h"

#if defined(NESTLING_NEON)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#if defined(__ARM_FEATURE_DOTPROD)
#define TARGET
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace nestling {
namespace {

constexpr int kWidth = 4, kRegisters = kLanes / kWidth, kSums = 4, kStep = 8;

using Ints = int32x4_t;
using Floats = float32x4_t;
using Doubles = float64x2_t;
template <typename T> using Entries = Doubles[kSums];
using Codes = uint8x16_t;
using Four = int8x16_t;

TARGET inline int32x4_t load(const int32_t* from) { return vld1q_s32(from); }
TARGET inline float32x4_t load(const float* from) { return vld1q_f32(from); }
TARGET inline float64x2_t load(const double* from) { return vld1q_f64(from); }
TARGET inline void store(int32_t* to, int32x4_t values) { vst1q_s32(to, values); }
TARGET inline float32x4_t all(float value) { return vdupq_n_f32(value); }
// Rounded twice, as the plain kernels do.
TARGET inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t c) { return a * b + c; }
TARGET inline float64x2_t multiply_add(float64x2_t a, float64x2_t b, float64x2_t c) { return a * b + c; }
TARGET inline uint8x16_t load_codes(const uint8_t* line) { return vld1q_u8(line); }

TARGET inline int8x16_t broadcast(const int8_t* query) {
    int32_t four;
    __builtin_memcpy(&four, query, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// The lowest bits, which are then shifted out.
template <int BITS> TARGET inline uint8x16_t part_of(uint8x16_t& whole, int) {
    if (BITS == 8) return whole;
    const uint8x16_t code = vandq_u8(whole, vdupq_n_u8((1 << BITS) - 1));
    whole = vshrq_n_u8(whole, BITS);
    return code;
}

// The instruction multiplies signed bytes: 128 is taken off 8-bit codes, and 128 times the query's sum added.
template <int BITS> int32_t first_sum(const int8_t* query, int64_t lines) {
    int32_t sum = 0;
    for (int64_t i = 0; BITS == 8 && i < 4 * lines; ++i) sum += query[i];
    return 128 * sum;
}

template <int BITS> struct Sums {
    int32x4_t sums;

    TARGET void start(int32_t begin) { sums = vdupq_n_s32(begin); }
    TARGET void add(int, uint8x16_t code, int8x16_t query) {
        const uint8x16_t centred = BITS == 8 ? veorq_u8(code, vdupq_n_u8(128)) : code;
        sums = vdotq_s32(sums, vreinterpretq_s8_u8(centred), query);
    }
    TARGET int32x4_t total() const { return sums; }
};

TARGET inline float32x4_t steps_of(int32x4_t sums, int32_t offset) {
    return vcvtq_f32_s32(vsubq_s32(vshlq_n_s32(sums, 1), vdupq_n_s32(offset)));
}

TARGET inline void sort_out(int64_t row, int32x4_t sums, float32x4_t bounds, float threshold, Found& found) {
    const uint32x4_t left_out = vcltq_f32(bounds, vdupq_n_f32(threshold));
    const uint32x4_t not_higher = vmvnq_u32(vcgtq_f32(bounds, vdupq_n_f32(found.skipped)));
    if (vminvq_u32(vandq_u32(left_out, not_higher))) return;
    int32_t sum[4];
    float bound[4];
    vst1q_s32(sum, sums);
    vst1q_f32(bound, bounds);
    sort_out_each(row, sum, bound, 4, threshold, found);
}

TARGET inline int32_t sum_of(const uint8_t* code, int64_t stride, const int8_t* query) {
    int32x4_t sums[4];
    for (auto& sum : sums) sum = vdupq_n_s32(0);
    int64_t i = 0;
    for (; i + 16 <= stride; i += 16) {
        uint8x16_t whole = vld1q_u8(code + i);
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part, whole = vshrq_n_u8(whole, 2)) {
            const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(whole, vdupq_n_u8(3)));
            sums[part] = vdotq_s32(sums[part], low, vld1q_s8(query + part * stride + i));
        }
    }
    const int32x4_t sum = vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3]));
    return vaddvq_s32(sum) + sum_from(i, code, stride, query);
}

TARGET inline int32_t product_of(const int8_t* a, const int8_t* b, int64_t dim) {
    int32x4_t sums[4];
    for (auto& sum : sums) sum = vdupq_n_s32(0);
    for (int64_t i = 0; i < dim; i += 64)
        for (int j = 0; j < 4; ++j)
            sums[j] = vdotq_s32(sums[j], vld1q_s8(a + i + 16 * j), vld1q_s8(b + i + 16 * j));
    return vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])));
}

TARGET void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
    static_assert(kSet == 4, "four bytes of all queries of a set are one register");
    for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* codes = tile + block * block_bytes(quads);
        int32x4_t sum[kSet][kRegisters];
        for (auto& query : sum)
            for (auto& one : query) one = vdupq_n_s32(0);
        for (int64_t quad = 0; quad < quads; ++quad, codes += 64) {
            const int8x16_t queries = vld1q_s8(set + quad * kSet * 4);
#pragma GCC unroll 4
            for (int four = 0; four < kRegisters; ++four) {
                const int8x16_t code = vreinterpretq_s8_u8(vld1q_u8(codes + 16 * four));
                sum[0][four] = vdotq_laneq_s32(sum[0][four], code, queries, 0);
                sum[1][four] = vdotq_laneq_s32(sum[1][four], code, queries, 1);
                sum[2][four] = vdotq_laneq_s32(sum[2][four], code, queries, 2);
                sum[3][four] = vdotq_laneq_s32(sum[3][four], code, queries, 3);
            }
        }
        for (int query = 0; query < kSet; ++query)
            for (int four = 0; four < kRegisters; ++four)
                vst1q_s32(sums + (query * blocks + block) * kLanes + 4 * four, sum[query][four]);
    }
}

TARGET inline void eight(float32x4_t low, float32x4_t high, float64x2_t* entries) {
    entries[0] = vcvt_f64_f32(vget_low_f32(low));
    entries[1] = vcvt_high_f64_f32(low);
    entries[2] = vcvt_f64_f32(vget_low_f32(high));
    entries[3] = vcvt_high_f64_f32(high);
}
TARGET inline void load_entries(const float* row, float64x2_t* entries) {
    eight(vld1q_f32(row), vld1q_f32(row + 4), entries);
}
TARGET inline void load_entries(const uint16_t* row, float64x2_t* entries) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(row));
    eight(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves), entries);
}
TARGET inline void load_entries(const int8_t* row, float64x2_t* entries) {
    const int16x8_t wide = vmovl_s8(vld1_s8(row));
    eight(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide)), entries);
}

// Eight sums side by side, added up in the order of the plain kernels.
template <typename T, bool DISTANCE>
TARGET inline double finish(const float64x2_t* sums, const T* row, const double* query, int64_t count) {
    double total = score_each<T, DISTANCE>(0, row, query, count);
    for (int j = 0; j < kSums; ++j) total = (total + vgetq_lane_f64(sums[j], 0)) + vgetq_lane_f64(sums[j], 1);
    return total;
}

#include "level.inl"
#include "level_by_rows.inl"
#include "planes.inl"

TARGET void unpack_registers(const Halves& halves, uint8_t* block) {
    const int64_t lines = halves.lines;
    transpose_low_bits(halves, block);
    for (int64_t quad = 4 * lines - 1; quad >= 0; --quad) {  // falling, as the low bits lie in front
        const int8x16_t part = vdupq_n_s8(int8_t(-2 * (quad % 4))), up = vdupq_n_s8(int8_t(-2 * (quad / lines)));
        const uint8_t *low = block + quad % lines * 64, *high = halves.coarse + quad / 4 * 64;
        for (int i = 0; i < 64; i += 16) {
            const uint8x16_t two = vandq_u8(vshlq_u8(vld1q_u8(low + i), up), vdupq_n_u8(3));
            const uint8x16_t four = vandq_u8(vshlq_u8(vld1q_u8(high + i), part), vdupq_n_u8(3));
            vst1q_u8(block + quad * 64 + i, vorrq_u8(vshlq_n_u8(four, 2), two));
        }
    }
}

}  // namespace

bool has_neon() {
#if defined(__APPLE__)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1;  // HWCAP_ASIMDDP, which older headers lack
#else
    return false;
#endif
}

const Level kNeon = {
    {{nullptr, scan<1, 1>, scan<1, 2>, scan<1, 3>, scan<1, 4>},
     {nullptr, scan<2, 1>, scan<2, 2>, scan<2, 3>, scan<2, 4>},
     {nullptr, scan<4, 1>, scan<4, 2>, scan<4, 3>, scan<4, 4>},
     {nullptr, scan<8, 1>, scan<8, 2>, scan<8, 3>, scan<8, 4>}},
    filter,
    refine,
    unpack_registers,
    product,
    nullptr,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
    estimates,
    products,
    rotate,
    encode,
    decode,
    pack_planes,
    unpack_planes,
    gather,
    level_codes,
    spread,
    near,
    hamming,
};

}  // namespace nestling
#endif
