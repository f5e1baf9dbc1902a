// What the kernels for NEON share: how they are compiled, and the sum for a row of 2-bit codes.
#pragma once
#include "kernels.h"

#if defined(NESTLING_NEON)
#include <arm_neon.h>

#if defined(__ARM_FEATURE_DOTPROD)
#define NEON
#else
#define NEON __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace nestling {

// <query, code> of `stride` bytes of four codes each, code s of byte j meeting entry s * stride + j.
NEON inline int32_t neon_sum(const uint8_t* code, int64_t stride, const int8_t* query) {
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
    int32_t total = vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])));
    for (; i < stride; ++i)
        for (int part = 0; part < 4; ++part) total += (code[i] >> 2 * part & 3) * query[part * stride + i];
    return total;
}

}  // namespace nestling
#endif
