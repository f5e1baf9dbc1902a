// Whole numbers, and sums of floats in one order: every level gives the same.
#include "graph_sums.h"

#include "neon.h"
#include "rows.h"

#include <algorithm>

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#endif

namespace nestling {
namespace {

int32_t plain_sum(const uint8_t* code, int64_t stride, const int8_t* query) {
    int32_t sum = 0;
    for (int part = 0; part < 4; ++part)
        for (int64_t j = 0; j < stride; ++j) sum += (code[j] >> 2 * part & 3) * query[part * stride + j];
    return sum;
}

template <int32_t (*SUM)(const uint8_t*, int64_t, const int8_t*)>
int64_t estimates(const CodedRows& coded, const Aim& aim, const int32_t* rows, int64_t count, float threshold,
                  const Estimates& out) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* code = code_of(coded, rows, i);
        const float value = estimate(coded, aim, code, SUM(code, coded.stride, aim.query));
        out.values[kept] = value;
        out.places[kept] = int32_t(i);
        kept += !(value < threshold);
    }
    return kept;
}

// Columns are summed side by side in registers, whatever their width.
#define TURN                                                                             \
    for (int64_t first = 0; first < width; first += 64) {                                \
        float sums[64] = {};                                                             \
        const float* row = matrix + first;                                               \
        for (int64_t i = 0; i < entries; ++i, row += width)                              \
            for (int j = 0; j < 64; ++j) sums[j] += vector[i] * row[j];                  \
        std::copy(sums, sums + 64, out + first);                                         \
    }

void plain_turn(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out) { TURN }

int32_t plain_product(const int8_t* a, const int8_t* b, int64_t dim) {
    int32_t sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += int32_t(a[i]) * b[i];
    return sum;
}

template <int32_t (*PRODUCT)(const int8_t*, const int8_t*, int64_t)>
void products(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows, int64_t count,
              int32_t* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = PRODUCT(a, values + rows[i] * dim, dim);
}

const GraphSums kPlainSums = {estimates<plain_sum>, products<plain_product>, plain_turn};

#if defined(__x86_64__)

AVX2 inline int32_t total(__m256i sums) {
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i pair = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xb1)));
}

AVX2 inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

AVX2 inline __m256i levels_times(__m256i code, const int8_t* query) {
    return _mm256_maddubs_epi16(_mm256_and_si256(code, _mm256_set1_epi8(3)), load(query));
}

AVX2 int32_t avx2_sum(const uint8_t* code, int64_t stride, const int8_t* query) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t j = 0; j < stride; j += 32) {  // 8 products of at most 3 * 127 fit 16 bits
        const __m256i four = load(code + j);
        const __m256i low = _mm256_add_epi16(levels_times(four, query + j),
                                             levels_times(_mm256_srli_epi16(four, 2), query + stride + j));
        const __m256i high =
            _mm256_add_epi16(levels_times(_mm256_srli_epi16(four, 4), query + 2 * stride + j),
                             levels_times(_mm256_srli_epi16(four, 6), query + 3 * stride + j));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1)));
    }
    return total(sum);
}

AVX2 void avx2_turn(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out) { TURN }

AVX2 int32_t avx2_product(const int8_t* a, const int8_t* b, int64_t dim) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < dim; i += 16) {
        const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        const __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    return total(sum);
}

const GraphSums kAvx2Sums = {estimates<avx2_sum>, products<avx2_product>, avx2_turn};

AVX512 inline __m512i code_times(const uint8_t* code, int64_t stride, const int8_t* query) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i even = _mm512_setzero_si512(), odd = even;
    for (int64_t j = 0; j < stride; j += 64) {
        const __m512i four = _mm512_loadu_si512(code + j);
        const int8_t* entries = query + j;
        even = _mm512_dpbusd_epi32(even, _mm512_and_si512(four, mask), _mm512_loadu_si512(entries));
        odd = _mm512_dpbusd_epi32(odd, _mm512_and_si512(_mm512_srli_epi16(four, 2), mask),
                                  _mm512_loadu_si512(entries + stride));
        even = _mm512_dpbusd_epi32(even, _mm512_and_si512(_mm512_srli_epi16(four, 4), mask),
                                   _mm512_loadu_si512(entries + 2 * stride));
        odd = _mm512_dpbusd_epi32(odd, _mm512_and_si512(_mm512_srli_epi16(four, 6), mask),
                                  _mm512_loadu_si512(entries + 3 * stride));
    }
    return _mm512_add_epi32(even, odd);
}

// The totals of four registers side by side.
AVX512 inline __m128i totals(const __m512i* s) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
    const __m512i both = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

AVX512 inline __m128 numbers(const uint8_t* const codes[4], int64_t at) {
    return _mm_setr_ps(number_of(codes[0], at), number_of(codes[1], at), number_of(codes[2], at),
                       number_of(codes[3], at));
}

// Codes of one line are most common; all of a query stays in registers then.
template <int64_t STRIDE>
AVX512 int64_t strided_estimates(const CodedRows& coded, const Aim& aim, const int32_t* rows, int64_t count,
                                 float threshold, const Estimates& out) {
    const int64_t stride = STRIDE ? STRIDE : coded.stride;
    const __m128i offset = _mm_set1_epi32(aim.offset), lanes = _mm_setr_epi32(0, 1, 2, 3);
    const __m128 weight = _mm_set1_ps(aim.weight), scale = _mm_set1_ps(aim.scale), least = _mm_set1_ps(threshold);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i += 4) {
        const uint8_t* codes[4];
        __m512i sums[4];
        for (int64_t t = 0; t < 4; ++t) {
            codes[t] = code_of(coded, rows, std::min(i + t, count - 1));
            sums[t] = code_times(codes[t], stride, aim.query);
        }
        const __m128i steps = _mm_sub_epi32(_mm_slli_epi32(totals(sums), 1), offset);
        __m128 values = _mm_mul_ps(_mm_mul_ps(_mm_cvtepi32_ps(steps), scale), numbers(codes, stride - 4));
        if (coded.biased) values = _mm_add_ps(values, _mm_mul_ps(weight, numbers(codes, stride - 8)));
        const __mmask8 there = count - i >= 4 ? 15 : __mmask8((1 << (count - i)) - 1);
        const __mmask8 fits = _mm_mask_cmp_ps_mask(there, values, least, _CMP_NLT_UQ);
        if (!fits) continue;
        const __m128i places = _mm_add_epi32(lanes, _mm_set1_epi32(int32_t(i)));
        _mm_storeu_ps(out.values + kept, _mm_maskz_compress_ps(fits, values));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out.places + kept), _mm_maskz_compress_epi32(fits, places));
        kept += __builtin_popcount(fits);
    }
    return kept;
}

AVX512 int64_t avx512_estimates(const CodedRows& coded, const Aim& aim, const int32_t* rows, int64_t count,
                                float threshold, const Estimates& out) {
    const auto estimates = coded.stride == 64 ? strided_estimates<64> : strided_estimates<0>;
    return estimates(coded, aim, rows, count, threshold, out);
}

AVX512 void avx512_turn(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out) {
    for (int64_t first = 0; first < width; first += 64) {
        __m512 sums[4];
        for (auto& sum : sums) sum = _mm512_setzero_ps();
        const float* row = matrix + first;
        for (int64_t i = 0; i < entries; ++i, row += width)
            for (int j = 0; j < 4; ++j)
                sums[j] = _mm512_add_ps(
                    sums[j], _mm512_mul_ps(_mm512_set1_ps(vector[i]), _mm512_loadu_ps(row + 16 * j)));
        for (int j = 0; j < 4; ++j) _mm512_storeu_ps(out + first + 16 * j, sums[j]);
    }
}

// The instruction multiplies unsigned by signed bytes: 128 is added to b, and 128 times the sum of a taken off.
AVX512 void avx512_products(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows,
                            int64_t count, int32_t* out) {
    const __m512i bias = _mm512_set1_epi8(-128);
    __m512i all = _mm512_setzero_si512();
    for (int64_t j = 0; j < dim; j += 64) all = _mm512_dpbusd_epi32(all, bias, _mm512_loadu_si512(a + j));
    const __m128i offset = _mm_set1_epi32(_mm512_reduce_add_epi32(all));
    for (int64_t i = 0; i < count; i += 4) {
        const int8_t* b[4];
        __m512i sums[4];
        for (int64_t t = 0; t < 4; ++t) {
            b[t] = values + rows[std::min(i + t, count - 1)] * dim;
            sums[t] = _mm512_setzero_si512();
        }
        for (int64_t j = 0; j < dim; j += 64) {
            const __m512i entries = _mm512_loadu_si512(a + j);
            for (int t = 0; t < 4; ++t)
                sums[t] = _mm512_dpbusd_epi32(
                    sums[t], _mm512_xor_si512(_mm512_loadu_si512(b[t] + j), bias), entries);
        }
        const __mmask8 there = count - i >= 4 ? 15 : __mmask8((1 << (count - i)) - 1);
        _mm_mask_storeu_epi32(out + i, there, _mm_sub_epi32(totals(sums), offset));
    }
}

const GraphSums kAvx512Sums = {avx512_estimates, avx512_products, avx512_turn};

#endif

#if defined(NESTLING_NEON)

NEON int32_t neon_product(const int8_t* a, const int8_t* b, int64_t dim) {
    int32x4_t sums[4];
    for (auto& sum : sums) sum = vdupq_n_s32(0);
    for (int64_t i = 0; i < dim; i += 64)
        for (int j = 0; j < 4; ++j)
            sums[j] = vdotq_s32(sums[j], vld1q_s8(a + i + 16 * j), vld1q_s8(b + i + 16 * j));
    return vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])));
}

// Of floats, the plain sums are in NEON already.
const GraphSums kNeonSums = {estimates<neon_sum>, products<neon_product>, plain_turn};

#endif

}  // namespace

const GraphSums& graph_sums_of(int32_t level) {
#if defined(__x86_64__)
    if (level == kAvx2Number) return kAvx2Sums;
    if (level == kAvx512Number) return kAvx512Sums;
#endif
#if defined(NESTLING_NEON)
    if (level == kNeonNumber) return kNeonSums;
#endif
    (void)level;
    return kPlainSums;
}

}  // namespace nestling
