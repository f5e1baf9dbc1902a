// The kernels for AVX2 with FMA and F16C (any x86 server or desktop since 2013).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c,popcnt")))

namespace nestling {
namespace {

constexpr int kWidth = 8, kRegisters = 1, kSums = 4, kStep = 16;

using Ints = __m256i;
using Floats = __m256;
using Doubles = __m256d;
template <typename T> using Entries = Doubles[kSums];
using Codes = __m256i;
using Four = __m256i;

TARGET inline __m256i load_bytes(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
TARGET inline __m256i load(const int32_t* from) { return load_bytes(from); }
TARGET inline __m256 load(const float* from) { return _mm256_loadu_ps(from); }
TARGET inline __m256d load(const double* from) { return _mm256_loadu_pd(from); }
TARGET inline void store(int32_t* to, __m256i values) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), values); }
TARGET inline __m256 all(float value) { return _mm256_set1_ps(value); }
TARGET inline __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
TARGET inline __m256d multiply_add(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
TARGET inline __m256i load_codes(const uint8_t* line) { return load_bytes(line); }
template <int BITS> inline int32_t first_sum(const int8_t*, int64_t) { return 0; }

TARGET inline __m256i broadcast(const int8_t* query) {
    int32_t four;
    __builtin_memcpy(&four, query, 4);
    return _mm256_set1_epi32(four);
}

template <int BITS> TARGET inline __m256i part_of(__m256i whole, int part) {
    if (BITS == 8) return whole;
    return _mm256_and_si256(_mm256_srli_epi16(whole, part * BITS), _mm256_set1_epi8(char((1 << BITS) - 1)));
}

// Sums of four products each. Eight-bit codes would overflow the pairs of 16 bits, so their halves go apart.
template <int BITS> TARGET inline __m256i multiply(__m256i code, __m256i query) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (BITS < 8) return _mm256_madd_epi16(_mm256_maddubs_epi16(code, query), ones);
    const __m256i low = _mm256_and_si256(code, _mm256_set1_epi8(15));
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(code, 4), _mm256_set1_epi8(15));
    const __m256i small = _mm256_madd_epi16(_mm256_maddubs_epi16(low, query), ones);
    const __m256i large = _mm256_madd_epi16(_mm256_maddubs_epi16(high, query), ones);
    return _mm256_add_epi32(small, _mm256_slli_epi32(large, 4));
}

template <int BITS> struct Sums {
    __m256i sums;

    TARGET void start(int32_t begin) { sums = _mm256_set1_epi32(begin); }
    TARGET void add(int, __m256i code, __m256i query) { sums = _mm256_add_epi32(sums, multiply<BITS>(code, query)); }
    TARGET __m256i total() const { return sums; }
};

TARGET inline __m256 steps_of(__m256i sums, int32_t offset) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_slli_epi32(sums, 1), _mm256_set1_epi32(offset)));
}

TARGET inline void sort_out(int64_t row, __m256i sums, __m256 bounds, float threshold, Found& found) {
    const int kept = _mm256_movemask_ps(_mm256_cmp_ps(bounds, _mm256_set1_ps(threshold), _CMP_NLT_UQ));
    const int higher = _mm256_movemask_ps(_mm256_cmp_ps(bounds, _mm256_set1_ps(found.skipped), _CMP_GT_OQ));
    if (!(kept | higher)) return;
    int32_t sum[8];
    float bound[8];
    store(sum, sums);
    _mm256_storeu_ps(bound, bounds);
    sort_out_each(row, sum, bound, 8, threshold, found);
}

TARGET inline int32_t total(__m256i sums) {
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i pair = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xb1)));
}

TARGET inline __m256i levels_times(__m256i code, const int8_t* query) {
    return _mm256_maddubs_epi16(_mm256_and_si256(code, _mm256_set1_epi8(3)), load_bytes(query));
}

TARGET inline int32_t sum_of(const uint8_t* code, int64_t stride, const int8_t* query) {
    __m256i sums = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 32 <= stride; i += 32) {  // 8 products of at most 3 * 127 fit 16 bits
        const __m256i four = load_bytes(code + i);
        const int8_t* entries = query + i;
        const __m256i low = _mm256_add_epi16(levels_times(four, entries),
                                             levels_times(_mm256_srli_epi16(four, 2), entries + stride));
        const __m256i high = _mm256_add_epi16(levels_times(_mm256_srli_epi16(four, 4), entries + 2 * stride),
                                              levels_times(_mm256_srli_epi16(four, 6), entries + 3 * stride));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1)));
    }
    return total(sums) + sum_from(i, code, stride, query);
}

TARGET inline int32_t product_of(const int8_t* a, const int8_t* b, int64_t dim) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < dim; i += 16) {
        const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        const __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    return total(sum);
}

// Half a block of rows with a set of queries. Eight products of pairs, of at most 2 * 15 * 127, fit 16 bits.
TARGET inline void product_of_half(const uint8_t* half, int64_t quads, const int8_t* set, __m256i sums[kSet]) {
    constexpr int64_t kPairs = 8;
    for (int query = 0; query < kSet; ++query) sums[query] = _mm256_setzero_si256();
    for (int64_t first = 0; first < quads; first += kPairs) {
        __m256i pairs[kSet];
        for (auto& pair : pairs) pair = _mm256_setzero_si256();
        const int64_t last = first + kPairs < quads ? first + kPairs : quads;
        for (int64_t quad = first; quad < last; ++quad) {
            const __m256i code = load_bytes(half + quad * 64);
#pragma GCC unroll 4
            for (int query = 0; query < kSet; ++query)
                pairs[query] = _mm256_add_epi16(
                    pairs[query], _mm256_maddubs_epi16(code, broadcast(set + (quad * kSet + query) * 4)));
        }
        for (int query = 0; query < kSet; ++query)
            sums[query] = _mm256_add_epi32(sums[query], _mm256_madd_epi16(pairs[query], _mm256_set1_epi16(1)));
    }
}

TARGET void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
    for (int64_t half = 0; half < 2 * blocks; ++half) {
        __m256i sum[kSet];
        product_of_half(tile + half / 2 * block_bytes(quads) + half % 2 * 32, quads, set, sum);
        for (int query = 0; query < kSet; ++query) store(sums + query * blocks * kLanes + half * 8, sum[query]);
    }
}

TARGET inline __m256d four(const float* row) { return _mm256_cvtps_pd(_mm_loadu_ps(row)); }
TARGET inline __m256d four(const uint16_t* row) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row))));
}
TARGET inline __m256d four(const int8_t* row) {
    int32_t bytes;
    __builtin_memcpy(&bytes, row, 4);
    return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)));
}

template <typename T> TARGET inline void load_entries(const T* row, __m256d* entries) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) entries[j] = four(row + 4 * j);
}

template <typename T, bool DISTANCE>
TARGET inline double finish(const __m256d* sums, const T* row, const double* query, int64_t count) {
    double sum[4];
    _mm256_storeu_pd(sum, _mm256_add_pd(_mm256_add_pd(sums[0], sums[1]), _mm256_add_pd(sums[2], sums[3])));
    return score_each<T, DISTANCE>((sum[0] + sum[1]) + (sum[2] + sum[3]), row, query, count);
}

#include "level.inl"
#include "level_by_rows.inl"
#include "planes.inl"

}  // namespace

const Level kAvx2 = {
    {{nullptr, scan<1, 1>, scan<1, 2>},
     {nullptr, scan<2, 1>, scan<2, 2>, scan<2, 3>, scan<2, 4>},
     {nullptr, scan<4, 1>, scan<4, 2>, scan<4, 3>, scan<4, 4>},
     {nullptr, scan<8, 1>, scan<8, 2>}},
    filter,
    refine,
    unpack,
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
