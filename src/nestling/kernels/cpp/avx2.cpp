// The kernels for AVX2 with FMA and F16C (any x86 server or desktop since 2013).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))

namespace nestling {
namespace {

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

TARGET inline void sort_out(int64_t row, __m256i sums, __m256 bounds, float threshold, Found& found) {
    const int kept = _mm256_movemask_ps(_mm256_cmp_ps(bounds, _mm256_set1_ps(threshold), _CMP_NLT_UQ));
    const __m256 skipped = _mm256_set1_ps(found.skipped);
    const int higher = _mm256_movemask_ps(_mm256_cmp_ps(bounds, skipped, _CMP_GT_OQ));
    if (!(kept | higher)) return;
    alignas(32) int32_t sum[8];
    alignas(32) float bound[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sum), sums);
    _mm256_store_ps(bound, bounds);
    for (int lane = 0; lane < 8; ++lane) {
        if (!(kept >> lane & 1)) {
            if (bound[lane] > found.skipped) found.skipped = bound[lane];
            continue;
        }
        found.rows[found.count] = int32_t(row + lane);
        found.sums[found.count] = sum[lane];
        if (found.bounds) found.bounds[found.count] = bound[lane];
        ++found.count;
    }
}

TARGET inline __m256 bounds_of(const Packed& codes, int64_t row, __m256 t, const Factors& factors) {
    const __m256 steps = _mm256_fmadd_ps(t, _mm256_set1_ps(factors.alpha), _mm256_set1_ps(factors.beta));
    __m256 rest = _mm256_mul_ps(_mm256_loadu_ps(codes.radius + row), _mm256_set1_ps(factors.gamma));
    if (codes.bias) rest = _mm256_add_ps(rest, _mm256_loadu_ps(codes.bias + row));
    return _mm256_fmadd_ps(_mm256_loadu_ps(codes.scale + row), steps, rest);
}

TARGET inline void keep(const Packed& codes, int64_t row, __m256i sums, const Probe& probe, Found& found) {
    const __m256 t = _mm256_cvtepi32_ps(
        _mm256_sub_epi32(_mm256_slli_epi32(sums, 1), _mm256_set1_epi32(probe.offset)));
    sort_out(row, sums, bounds_of(codes, row, t, probe.factors), probe.threshold, found);
}

TARGET void sift(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    for (int64_t row = first * kLanes; row < last * kLanes; row += 8) {
        const auto* sums = reinterpret_cast<const __m256i*>(probe.ledger + row - first * kLanes);
        keep(codes, row, _mm256_loadu_si256(sums), probe, *found);
    }
}

template <int BITS, int QUERIES>
TARGET void scan(const Packed& codes, int64_t first, int64_t last, const Probe* probes, Found* found) {
    constexpr int kParts = 8 / BITS;
    const __m256i mask = _mm256_set1_epi8(char((1 << BITS) - 1));
    for (int64_t half = 2 * first; half < 2 * last; ++half) {
        const uint8_t* line = codes.blocks + (half / 2) * codes.lines * 64 + (half % 2) * 32;
        __m256i sums[QUERIES];
        for (auto& sum : sums) sum = _mm256_setzero_si256();
        for (int64_t i = 0; i < codes.lines; ++i, line += 64) {
            const __m256i whole = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                const __m256i shifted = _mm256_srli_epi16(whole, part * BITS);
                const __m256i code = BITS == 8 ? whole : _mm256_and_si256(shifted, mask);
#pragma GCC unroll 8
                for (int query = 0; query < QUERIES; ++query) {
                    int32_t four;
                    __builtin_memcpy(&four, probes[query].query + 4 * (i * kParts + part), 4);
                    const __m256i product = multiply<BITS>(code, _mm256_set1_epi32(four));
                    sums[query] = _mm256_add_epi32(sums[query], product);
                }
            }
        }
        for (int query = 0; query < QUERIES; ++query) {
            if (probes[query].ledger) {
                int32_t* ledger = probes[query].ledger + (half - 2 * first) * 8;
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(ledger), sums[query]);
            }
            keep(codes, half * 8, sums[query], probes[query], found[query]);
        }
    }
}

TARGET inline int32_t fine_of(const uint8_t* row, int64_t stride, const int8_t* query) {
    __m256i sums = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 32 <= stride; i += 32) {
        const __m256i whole = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i));
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            const __m256i code = _mm256_and_si256(_mm256_srli_epi16(whole, 2 * part), _mm256_set1_epi8(3));
            const auto* factor = reinterpret_cast<const __m256i*>(query + part * stride + i);
            sums = _mm256_add_epi32(sums, multiply<2>(code, _mm256_loadu_si256(factor)));
        }
    }
    alignas(32) int32_t sum[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sum), sums);
    int32_t total = 0;
    for (int32_t part : sum) total += part;
    for (; i < stride; ++i)
        for (int part = 0; part < 4; ++part) total += ((row[i] >> (2 * part)) & 3) * query[part * stride + i];
    return total;
}

TARGET void refine(const Fine& fine, const Probe& probe, Found* found) {
    const int64_t count = found->count;
    found->count = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t ahead = i + kFetchAhead < count ? i + kFetchAhead : count - 1;
        _mm_prefetch(reinterpret_cast<const char*>(fine.codes + found->rows[ahead] * fine.stride), _MM_HINT_T0);
        const int32_t row = found->rows[i];
        const int32_t sum = 4 * found->sums[i] + fine_of(fine.codes + row * fine.stride, fine.stride, probe.query);
        const float rest = probe.factors.gamma * fine.radius[row] + (fine.bias ? fine.bias[row] : 0);
        const float steps = probe.factors.alpha * float(2 * sum - probe.offset) + probe.factors.beta;
        const float bound = fine.scale[row] * steps + rest;
        if (bound < probe.threshold) {
            found->skipped = bound > found->skipped ? bound : found->skipped;
            continue;
        }
        found->rows[found->count] = row;
        found->bounds[found->count++] = bound;
    }
}

TARGET void unpack(const Halves& halves, uint8_t* block) {
    const int64_t lines = halves.lines;
    // The low bits stand row by row; they are turned so that four bytes of 16 rows stand together.
    for (int64_t row = 0; row < kLanes; ++row) {
        const uint8_t* fine = halves.fine + (row < halves.rows ? row : 0) * 4 * lines;
        for (int64_t i = 0; i < lines; ++i) __builtin_memcpy(block + 64 * i + 4 * row, fine + 4 * i, 4);
    }
    for (int64_t quad = 4 * lines - 1; quad >= 0; --quad) {  // falling, as the low bits stand in front
        const int part = int(2 * (quad % 4)), up = int(2 * (quad / lines));
        const uint8_t *low = block + quad % lines * 64, *high = halves.coarse + quad / 4 * 64;
        for (int i = 0; i < 64; ++i)
            block[quad * 64 + i] = uint8_t((high[i] >> part & 3) << 2 | (low[i] >> up & 3));
    }
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
            const __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half + quad * 64));
#pragma GCC unroll 4
            for (int query = 0; query < kSet; ++query) {
                int32_t four;
                __builtin_memcpy(&four, set + (quad * kSet + query) * 4, 4);
                pairs[query] = _mm256_add_epi16(pairs[query], _mm256_maddubs_epi16(code, _mm256_set1_epi32(four)));
            }
        }
        for (int query = 0; query < kSet; ++query)
            sums[query] = _mm256_add_epi32(sums[query], _mm256_madd_epi16(pairs[query], _mm256_set1_epi16(1)));
    }
}

TARGET void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
    for (int64_t half = 0; half < 2 * blocks; ++half) {
        __m256i sum[kSet];
        product_of_half(tile + half / 2 * block_bytes(quads) + half % 2 * 32, quads, set, sum);
        for (int query = 0; query < kSet; ++query)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + query * blocks * kLanes + half * 8), sum[query]);
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

template <bool DISTANCE> TARGET inline __m256d add(__m256d sum, __m256d x, __m256d y) {
    if (!DISTANCE) return _mm256_fmadd_pd(x, y, sum);
    const __m256d apart = _mm256_sub_pd(x, y);
    return _mm256_fmadd_pd(apart, apart, sum);
}

template <typename T, bool DISTANCE>
TARGET double score(const void* data, const double* query, int64_t dim) {
    const T* row = static_cast<const T*>(data);
    __m256d sums[4];
    for (auto& sum : sums) sum = _mm256_setzero_pd();
    int64_t i = 0;
    for (; i + 16 <= dim; i += 16)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
            sums[j] = add<DISTANCE>(sums[j], four(row + i + 4 * j), _mm256_loadu_pd(query + i + 4 * j));
    alignas(32) double sum[4];
    _mm256_store_pd(sum, _mm256_add_pd(_mm256_add_pd(sums[0], sums[1]), _mm256_add_pd(sums[2], sums[3])));
    double total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (; i < dim; ++i) {
        const double x = widen(row[i]), y = query[i];
        total += DISTANCE ? (x - y) * (x - y) : x * y;
    }
    return total;
}

}  // namespace

const Level kAvx2 = {
    {{nullptr, scan<1, 1>, scan<1, 2>},
     {nullptr, scan<2, 1>, scan<2, 2>, scan<2, 3>, scan<2, 4>},
     {nullptr, scan<4, 1>, scan<4, 2>, scan<4, 3>, scan<4, 4>},
     {nullptr, scan<8, 1>, scan<8, 2>}},
    sift,
    refine,
    unpack,
    product,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
};

}  // namespace nestling
#endif
