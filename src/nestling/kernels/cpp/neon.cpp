// The kernels for NEON with dot products (Arm from Cortex-A55 and Neoverse N1 on, all of Apple's).
#include "neon.h"

#if defined(NESTLING_NEON)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

namespace nestling {
namespace {

constexpr int kRegisters = kLanes / 4;  // for a block of rows: four sums, or four bytes of four rows, each

// Rounded step by step in the order of the plain kernels.
inline float32x4_t bounds_of(const Packed& codes, int64_t row, float32x4_t t, const Factors& factors) {
    const float32x4_t bias = codes.bias ? vld1q_f32(codes.bias + row) : vdupq_n_f32(0);
    const float32x4_t rest = vaddq_f32(vmulq_n_f32(vld1q_f32(codes.radius + row), factors.gamma), bias);
    const float32x4_t steps = vaddq_f32(vmulq_n_f32(t, factors.alpha), vdupq_n_f32(factors.beta));
    return vaddq_f32(vmulq_f32(vld1q_f32(codes.scale + row), steps), rest);
}

inline void keep(const Packed& codes, int64_t row, int32x4_t sums, const Probe& probe, Found& found) {
    const float32x4_t t = vcvtq_f32_s32(vsubq_s32(vshlq_n_s32(sums, 1), vdupq_n_s32(probe.offset)));
    const float32x4_t bounds = bounds_of(codes, row, t, probe.factors);
    const uint32x4_t left_out = vcltq_f32(bounds, vdupq_n_f32(probe.threshold));
    const uint32x4_t not_higher = vmvnq_u32(vcgtq_f32(bounds, vdupq_n_f32(found.skipped)));
    if (vminvq_u32(vandq_u32(left_out, not_higher))) return;
    int32_t sum[4];
    float bound[4];
    vst1q_s32(sum, sums);
    vst1q_f32(bound, bounds);
    for (int lane = 0; lane < 4; ++lane) {
        if (bound[lane] < probe.threshold) {
            if (bound[lane] > found.skipped) found.skipped = bound[lane];
            continue;
        }
        found.rows[found.count] = int32_t(row + lane);
        found.sums[found.count] = sum[lane];
        if (found.bounds) found.bounds[found.count] = bound[lane];
        ++found.count;
    }
}

void sift(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    for (int64_t row = first * kLanes; row < last * kLanes; row += 4)
        keep(codes, row, vld1q_s32(probe.ledger + row - first * kLanes), probe, *found);
}

inline int8x16_t broadcast(const int8_t* query) {
    int32_t four;
    __builtin_memcpy(&four, query, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// The instruction multiplies signed bytes: 128 is taken off 8-bit codes, and 128 times the query's sum added.
template <int BITS> int32_t first_sum(const int8_t* query, int64_t lines) {
    int32_t sum = 0;
    for (int64_t i = 0; BITS == 8 && i < 4 * lines; ++i) sum += query[i];
    return 128 * sum;
}

template <int BITS> inline int8x16_t lowest(uint8x16_t whole) {
    return vreinterpretq_s8_u8(BITS == 8 ? veorq_u8(whole, vdupq_n_u8(128))
                                         : vandq_u8(whole, vdupq_n_u8((1 << BITS) - 1)));
}

template <int BITS, int QUERIES>
NEON void scan(const Packed& codes, int64_t first, int64_t last, const Probe* probes, Found* found) {
    constexpr int kParts = 8 / BITS;
    int32_t begin[QUERIES];
    for (int query = 0; query < QUERIES; ++query) begin[query] = first_sum<BITS>(probes[query].query, codes.lines);
    for (int64_t block = first; block < last; ++block) {
        const uint8_t* line = codes.blocks + block * codes.lines * 64;
        int32x4_t sums[QUERIES][kRegisters];
        for (int query = 0; query < QUERIES; ++query)
            for (auto& sum : sums[query]) sum = vdupq_n_s32(begin[query]);
        for (int64_t i = 0; i < codes.lines; ++i, line += 64) {
            uint8x16_t whole[kRegisters];
            for (int four = 0; four < kRegisters; ++four) whole[four] = vld1q_u8(line + 16 * four);
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                int8x16_t entries[QUERIES];
                for (int query = 0; query < QUERIES; ++query)
                    entries[query] = broadcast(probes[query].query + 4 * (i * kParts + part));
#pragma GCC unroll 4
                for (int four = 0; four < kRegisters; ++four) {
                    const int8x16_t code = lowest<BITS>(whole[four]);
                    whole[four] = vshrq_n_u8(whole[four], BITS);
#pragma GCC unroll 4
                    for (int query = 0; query < QUERIES; ++query)
                        sums[query][four] = vdotq_s32(sums[query][four], code, entries[query]);
                }
            }
        }
        for (int query = 0; query < QUERIES; ++query)
            for (int four = 0; four < kRegisters; ++four) {
                const int64_t lane = 4 * four;
                if (probes[query].ledger)
                    vst1q_s32(probes[query].ledger + (block - first) * kLanes + lane, sums[query][four]);
                keep(codes, block * kLanes + lane, sums[query][four], probes[query], found[query]);
            }
    }
}

NEON void refine(const Fine& fine, const Probe& probe, Found* found) {
    const int64_t count = found->count;
    found->count = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t ahead = i + kFetchAhead < count ? i + kFetchAhead : count - 1;
        __builtin_prefetch(fine.codes + found->rows[ahead] * fine.stride);
        const int32_t row = found->rows[i];
        const int32_t sum = 4 * found->sums[i] + neon_sum(fine.codes + row * fine.stride, fine.stride, probe.query);
        const float rest = probe.factors.gamma * fine.radius[row] + (fine.bias ? fine.bias[row] : 0);
        const float steps = probe.factors.alpha * float(2 * sum - probe.offset) + probe.factors.beta;
        const float bound = fine.scale[row] * steps + rest;
        if (bound < probe.threshold) {
            found->skipped = bound > found->skipped ? bound : found->skipped;
            continue;
        }
        found->rows[found->count] = row;
        found->sums[found->count] = sum;
        found->bounds[found->count++] = bound;
    }
}

void unpack(const Halves& halves, uint8_t* block) {
    const int64_t lines = halves.lines;
    // The low bits stand row by row; they are turned so that four bytes of 16 rows stand together.
    for (int64_t row = 0; row < kLanes; ++row) {
        const uint8_t* fine = halves.fine + (row < halves.rows ? row : 0) * 4 * lines;
        for (int64_t i = 0; i < lines; ++i) __builtin_memcpy(block + 64 * i + 4 * row, fine + 4 * i, 4);
    }
    for (int64_t quad = 4 * lines - 1; quad >= 0; --quad) {  // falling, as the low bits stand in front
        const int8x16_t part = vdupq_n_s8(int8_t(-2 * (quad % 4))), up = vdupq_n_s8(int8_t(-2 * (quad / lines)));
        const uint8_t *low = block + quad % lines * 64, *high = halves.coarse + quad / 4 * 64;
        for (int i = 0; i < 64; i += 16) {
            const uint8x16_t two = vandq_u8(vshlq_u8(vld1q_u8(low + i), up), vdupq_n_u8(3));
            const uint8x16_t four = vandq_u8(vshlq_u8(vld1q_u8(high + i), part), vdupq_n_u8(3));
            vst1q_u8(block + quad * 64 + i, vorrq_u8(vshlq_n_u8(four, 2), two));
        }
    }
}

NEON void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
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

struct Eight {
    float64x2_t pairs[4];
};

inline Eight eight(float32x4_t low, float32x4_t high) {
    return {{vcvt_f64_f32(vget_low_f32(low)), vcvt_high_f64_f32(low), vcvt_f64_f32(vget_low_f32(high)),
             vcvt_high_f64_f32(high)}};
}
inline Eight eight(const float* row) { return eight(vld1q_f32(row), vld1q_f32(row + 4)); }
inline Eight eight(const uint16_t* row) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(row));
    return eight(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves));
}
inline Eight eight(const int8_t* row) {
    const int16x8_t wide = vmovl_s8(vld1_s8(row));
    return eight(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide)));
}

// Eight sums side by side, added up in the order of the plain kernels.
template <typename T, bool DISTANCE>
double score(const void* data, const double* query, int64_t dim) {
    const T* row = static_cast<const T*>(data);
    float64x2_t pairs[4];
    for (auto& pair : pairs) pair = vdupq_n_f64(0);
    int64_t i = 0;
    for (; i + 8 <= dim; i += 8) {
        const Eight entries = eight(row + i);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const float64x2_t x = entries.pairs[j], y = vld1q_f64(query + i + 2 * j), apart = vsubq_f64(x, y);
            pairs[j] = vaddq_f64(pairs[j], DISTANCE ? vmulq_f64(apart, apart) : vmulq_f64(x, y));
        }
    }
    double total = 0;
    for (; i < dim; ++i) {
        const double x = widen(row[i]), y = query[i];
        total += DISTANCE ? (x - y) * (x - y) : x * y;
    }
    for (float64x2_t pair : pairs) total = (total + vgetq_lane_f64(pair, 0)) + vgetq_lane_f64(pair, 1);
    return total;
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
    sift,
    refine,
    unpack,
    product,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
};

}  // namespace nestling
#endif
