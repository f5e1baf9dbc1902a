// Whole numbers throughout: every level gives the same sums.
#include "graph_sums.h"

#include "rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#endif

namespace nestling {
namespace {

inline const uint8_t* code_of(const uint8_t* codes, int64_t stride, const int32_t* rows, int64_t number) {
    return codes + (rows ? rows[number] : number) * stride;
}

void plain_codes(const uint8_t* codes, int64_t stride, const int32_t* rows, int64_t count, const int8_t* query,
                 int32_t* sums) {
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* code = code_of(codes, stride, rows, i);
        int32_t sum = 0;
        for (int part = 0; part < 4; ++part)
            for (int64_t j = 0; j < stride; ++j) sum += (code[j] >> 2 * part & 3) * query[part * stride + j];
        sums[i] = sum;
    }
}

int32_t plain_product(const int8_t* a, const int8_t* b, int64_t dim) {
    int32_t sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += int32_t(a[i]) * b[i];
    return sum;
}

const GraphSums kPlainSums = {plain_codes, plain_product};

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

AVX2 void avx2_codes(const uint8_t* codes, int64_t stride, const int32_t* rows, int64_t count,
                     const int8_t* query, int32_t* sums) {
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* code = code_of(codes, stride, rows, i);
        __m256i sum = _mm256_setzero_si256();
        for (int64_t j = 0; j < stride; j += 32) {  // 8 products of at most 3 * 127 fit 16 bits
            const __m256i four = load(code + j);
            const __m256i low = _mm256_add_epi16(
                levels_times(four, query + j),
                levels_times(_mm256_srli_epi16(four, 2), query + stride + j));
            const __m256i high = _mm256_add_epi16(
                levels_times(_mm256_srli_epi16(four, 4), query + 2 * stride + j),
                levels_times(_mm256_srli_epi16(four, 6), query + 3 * stride + j));
            sum = _mm256_add_epi32(sum,
                                   _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1)));
        }
        sums[i] = total(sum);
    }
}

AVX2 int32_t avx2_product(const int8_t* a, const int8_t* b, int64_t dim) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < dim; i += 16) {
        const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        const __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    return total(sum);
}

const GraphSums kAvx2Sums = {avx2_codes, avx2_product};

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

AVX512 void avx512_codes(const uint8_t* codes, int64_t stride, const int32_t* rows, int64_t count,
                         const int8_t* query, int32_t* sums) {
    __m512i four[4];
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (int64_t t = 0; t < 4; ++t)
            four[t] = code_times(code_of(codes, stride, rows, i + t), stride, query);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + i), totals(four));
    }
    for (; i < count; ++i)
        sums[i] = _mm512_reduce_add_epi32(code_times(code_of(codes, stride, rows, i), stride, query));
}

AVX512 int32_t avx512_product(const int8_t* a, const int8_t* b, int64_t dim) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < dim; i += 32) {
        const __m512i x = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i)));
        const __m512i y = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i)));
        sum = _mm512_dpwssd_epi32(sum, x, y);
    }
    return _mm512_reduce_add_epi32(sum);
}

const GraphSums kAvx512Sums = {avx512_codes, avx512_product};

#endif

}  // namespace

const GraphSums& graph_sums_of(int32_t level) {
#if defined(__x86_64__)
    if (level == kAvx2Number) return kAvx2Sums;
    if (level == kAvx512Number) return kAvx512Sums;
#endif
    (void)level;
    return kPlainSums;
}

}  // namespace nestling
