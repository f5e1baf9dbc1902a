// The kernels for AVX-512 with VNNI (Intel from Ice Lake on, AMD from Zen 4 on).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")))

namespace nestling {
namespace {

TARGET inline __m512i broadcast(const int8_t* query) {
    int32_t four;
    __builtin_memcpy(&four, query, 4);
    return _mm512_set1_epi32(four);
}

TARGET inline void append(Found& found, __mmask16 kept, __m512i rows, __m512i sums, __m512 bounds) {
    // Compressed in a register and stored whole: compressing into memory is many times slower on Zen 4.
    _mm512_storeu_si512(found.rows + found.count, _mm512_maskz_compress_epi32(kept, rows));
    _mm512_storeu_si512(found.sums + found.count, _mm512_maskz_compress_epi32(kept, sums));
    if (found.bounds) _mm512_storeu_ps(found.bounds + found.count, _mm512_maskz_compress_ps(kept, bounds));
    found.count += __builtin_popcount(kept);
}

TARGET inline void sort_out(__m512i rows, __mmask16 there, __m512i sums, __m512 bounds, float threshold,
                            Found& found) {
    const __mmask16 kept = _mm512_mask_cmp_ps_mask(there, bounds, _mm512_set1_ps(threshold), _CMP_NLT_UQ);
    const __m512 skipped = _mm512_set1_ps(found.skipped);
    const __mmask16 higher = _mm512_mask_cmp_ps_mask(there & ~kept, bounds, skipped, _CMP_GT_OQ);
    if (higher) found.skipped = _mm512_mask_reduce_max_ps(higher, bounds);
    if (kept) append(found, kept, rows, sums, bounds);
}

TARGET inline __m512 bounds_of(const Packed& codes, int64_t row, __m512 t, const Factors& factors) {
    const __m512 steps = _mm512_fmadd_ps(t, _mm512_set1_ps(factors.alpha), _mm512_set1_ps(factors.beta));
    __m512 rest = _mm512_mul_ps(_mm512_loadu_ps(codes.radius + row), _mm512_set1_ps(factors.gamma));
    if (codes.bias) rest = _mm512_add_ps(rest, _mm512_loadu_ps(codes.bias + row));
    return _mm512_fmadd_ps(_mm512_loadu_ps(codes.scale + row), steps, rest);
}

TARGET inline __m512 steps_of(__m512i sums, int32_t offset) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_slli_epi32(sums, 1), _mm512_set1_epi32(offset)));
}

TARGET inline __m512i rows_of(int64_t block) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(lanes, _mm512_set1_epi32(int32_t(block * kLanes)));
}

TARGET inline void keep(const Packed& codes, int64_t block, __m512i sums, const Probe& probe, Found& found) {
    const __m512 bounds = bounds_of(codes, block * kLanes, steps_of(sums, probe.offset), probe.factors);
    sort_out(rows_of(block), 0xffff, sums, bounds, probe.threshold, found);
}

// What does not change from block to block is held in registers: this is a sixth of a search in batches.
TARGET void sift(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    const Packed packed = codes;
    const Factors factors = probe.factors;
    const int32_t *sums = probe.ledger, offset = probe.offset;
    const __m512 threshold = _mm512_set1_ps(probe.threshold);
    __m512 skipped = _mm512_set1_ps(found->skipped);
    for (int64_t block = first; block < last; ++block, sums += kLanes) {
        const __m512i sum = _mm512_loadu_si512(sums);
        const __m512 t = steps_of(sum, offset), bounds = bounds_of(packed, block * kLanes, t, factors);
        const __mmask16 kept = _mm512_cmp_ps_mask(bounds, threshold, _CMP_NLT_UQ);
        skipped = _mm512_mask_max_ps(skipped, ~kept, skipped, bounds);
        if (kept) append(*found, kept, rows_of(block), sum, bounds);
    }
    found->skipped = _mm512_reduce_max_ps(skipped);
}

// Codes stay where they are in their byte: what stands `shift` bits too high comes out 2^shift times too
// large in a sum of its own, and is shifted back once a block. That saves the shifts of every line.
template <int BITS, int QUERIES>
TARGET void scan(const Packed& codes, int64_t first, int64_t last, const Probe* probes, Found* found) {
    constexpr int kParts = 8 / BITS;
    __m512i masks[kParts];
    for (int part = 0; part < kParts; ++part)
        masks[part] = _mm512_set1_epi8(char(((1 << BITS) - 1) << (part * BITS)));
    for (int64_t block = first; block < last; ++block) {
        const uint8_t* line = codes.blocks + block * codes.lines * 64;
        __m512i sums[QUERIES][kParts];
        for (int query = 0; query < QUERIES; ++query)
            for (int part = 0; part < kParts; ++part) sums[query][part] = _mm512_setzero_si512();
        for (int64_t i = 0; i < codes.lines; ++i, line += 64) {
            const __m512i whole = _mm512_loadu_si512(line);
            _mm_prefetch(reinterpret_cast<const char*>(line) + 4096, _MM_HINT_T0);
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                const __m512i code = BITS == 8 ? whole : _mm512_and_si512(whole, masks[part]);
#pragma GCC unroll 8
                for (int query = 0; query < QUERIES; ++query)
                    sums[query][part] = _mm512_dpbusd_epi32(
                        sums[query][part], code, broadcast(probes[query].query + 4 * (i * kParts + part)));
            }
        }
        for (int query = 0; query < QUERIES; ++query) {
            __m512i sum = sums[query][0];
            for (int part = 1; part < kParts; ++part)
                sum = _mm512_add_epi32(sum, _mm512_srai_epi32(sums[query][part], part * BITS));
            if (probes[query].ledger)
                _mm512_storeu_si512(probes[query].ledger + (block - first) * kLanes, sum);
            keep(codes, block, sum, probes[query], found[query]);
        }
    }
}

// Four rows at a time: they share the reading of the query and the sums across registers.
TARGET inline __m128i fine_of_four(const uint8_t* const rows[4], int64_t stride, const int8_t* query) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sums[4];
    for (auto& sum : sums) sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < stride; i += 64) {
        const __mmask64 there = stride - i >= 64 ? ~0ull : (1ull << (stride - i)) - 1;
        __m512i factors[4];
        for (int part = 0; part < 4; ++part)
            factors[part] = _mm512_maskz_loadu_epi8(there, query + part * stride + i);
#pragma GCC unroll 4
        for (int row = 0; row < 4; ++row) {
            const __m512i whole = _mm512_maskz_loadu_epi8(there, rows[row] + i);
#pragma GCC unroll 4
            for (int part = 0; part < 4; ++part) {
                const __m512i code = _mm512_and_si512(_mm512_srli_epi16(whole, 2 * part), mask);
                sums[row] = _mm512_dpbusd_epi32(sums[row], code, factors[part]);
            }
        }
    }
    const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]),
                                         _mm512_unpackhi_epi32(sums[0], sums[1]));
    const __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]),
                                          _mm512_unpackhi_epi32(sums[2], sums[3]));
    const __m512i all =
        _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

TARGET inline __m512 gather(const float* values, __m512i rows, __mmask16 there) {
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, rows, values, 4);
}

TARGET void refine(const Fine& fine, const Probe& probe, Found* found) {
    const int64_t count = found->count;
    found->count = 0;
    for (int64_t i = 0; i < count; i += kLanes) {
        const __mmask16 there = count - i >= kLanes ? 0xffff : (1 << (count - i)) - 1;
        const __m512i rows = _mm512_maskz_loadu_epi32(there, found->rows + i);
        __m512i sums = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(there, found->sums + i), 2);
        alignas(64) int32_t low[kLanes];
        for (int64_t four = 0; four < kLanes && i + four < count; four += 4) {
            const uint8_t* codes[4];
            for (int64_t j = 0; j < 4; ++j) {
                const int64_t here = i + four + j < count ? i + four + j : count - 1;
                const int64_t ahead = here + kFetchAhead < count ? here + kFetchAhead : count - 1;
                codes[j] = fine.codes + found->rows[here] * fine.stride;
                _mm_prefetch(reinterpret_cast<const char*>(fine.codes + found->rows[ahead] * fine.stride),
                             _MM_HINT_T0);
            }
            _mm_store_si128(reinterpret_cast<__m128i*>(low + four), fine_of_four(codes, fine.stride, probe.query));
        }
        sums = _mm512_add_epi32(sums, _mm512_maskz_loadu_epi32(there, low));
        const __m512 t = steps_of(sums, probe.offset);
        const __m512 steps = _mm512_fmadd_ps(t, _mm512_set1_ps(probe.factors.alpha),
                                             _mm512_set1_ps(probe.factors.beta));
        __m512 rest = _mm512_mul_ps(gather(fine.radius, rows, there), _mm512_set1_ps(probe.factors.gamma));
        if (fine.bias) rest = _mm512_add_ps(rest, gather(fine.bias, rows, there));
        const __m512 bounds = _mm512_fmadd_ps(gather(fine.scale, rows, there), steps, rest);
        sort_out(rows, there, sums, bounds, probe.threshold, *found);
    }
}

// Sixteen registers as a square of 32-bit numbers: rows become columns.
TARGET inline void transpose(__m512i rows[16]) {
    __m512i some[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // squares of four by four within each quarter of the registers
        const __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]), b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
        const __m512i d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
        some[i] = _mm512_unpacklo_epi64(a, c);
        some[i + 1] = _mm512_unpackhi_epi64(a, c);
        some[i + 2] = _mm512_unpacklo_epi64(b, d);
        some[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // and the quarters among each other
        const __m512i a = _mm512_shuffle_i32x4(some[i], some[i + 4], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(some[i], some[i + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(some[i + 8], some[i + 12], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(some[i + 8], some[i + 12], 0xdd);
        rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        rows[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        rows[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

// The low bits of a block stand row by row; they are turned so that four bytes of 16 rows stand together.
TARGET inline void turn_rows(const Halves& halves, uint8_t* block) {
    const int64_t stride = 4 * halves.lines;
    for (int64_t i = 0; i < stride; i += 64) {
        const __mmask64 there = stride - i >= 64 ? ~0ull : (1ull << (stride - i)) - 1;
        __m512i rows[kLanes];
#pragma GCC unroll 16
        for (int row = 0; row < kLanes; ++row)
            rows[row] = _mm512_maskz_loadu_epi8(there, halves.fine + (row < halves.rows ? row : 0) * stride + i);
        transpose(rows);
        for (int64_t j = 0; j < kLanes && i / 4 + j < halves.lines; ++j)
            _mm512_storeu_si512(block + (i / 4 + j) * 64, rows[j]);
    }
}

// Two bits of either half, which stand `PART` and `up` fields of two bits high.
template <int PART> TARGET inline __m512i joined(__m512i high, __m512i low, int up) {
    const __m512i above = PART ? _mm512_srli_epi16(high, PART ? 2 * PART - 2 : 0) : _mm512_slli_epi16(high, 2);
    const __m512i below = _mm512_srl_epi16(low, _mm_cvtsi32_si128(2 * up));
    // Where the mask has a bit, those above; else those below.
    const __m512i both = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x0c), above, below, 0xca);
    return _mm512_and_si512(both, _mm512_set1_epi8(0x0f));
}

TARGET void unpack(const Halves& halves, uint8_t* block) {
    turn_rows(halves, block);
    int64_t i = halves.lines - 1;
    int up = 3;
    uint8_t* out = block + (4 * halves.lines - 1) * 64;
    for (int64_t line = halves.lines - 1; line >= 0; --line) {  // falling, as the low bits stand in front
        const __m512i high = _mm512_loadu_si512(halves.coarse + line * 64);
#pragma GCC unroll 4
        for (int part = 3; part >= 0; --part, out -= 64) {
            const __m512i low = _mm512_loadu_si512(block + i * 64);
            _mm512_storeu_si512(out, part == 3   ? joined<3>(high, low, up)
                                     : part == 2 ? joined<2>(high, low, up)
                                     : part == 1 ? joined<1>(high, low, up)
                                                 : joined<0>(high, low, up));
            if (--i < 0) i = halves.lines - 1, --up;
        }
    }
}

TARGET void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
    const int64_t bytes = block_bytes(quads);
    for (int64_t first = 0; first < blocks; first += kWide, tile += kWide * bytes) {
        __m512i sum[kSet][kWide];
#pragma GCC unroll 4
        for (int query = 0; query < kSet; ++query)
#pragma GCC unroll 6
            for (int block = 0; block < kWide; ++block) sum[query][block] = _mm512_setzero_si512();
        for (int64_t quad = 0; quad < quads; ++quad) {
            __m512i codes[kWide];
#pragma GCC unroll 6
            for (int block = 0; block < kWide; ++block)
                codes[block] = _mm512_load_si512(tile + block * bytes + 64 * quad);
#pragma GCC unroll 4
            for (int query = 0; query < kSet; ++query) {
                const __m512i four = broadcast(set + (quad * kSet + query) * 4);
#pragma GCC unroll 6
                for (int block = 0; block < kWide; ++block)
                    sum[query][block] = _mm512_dpbusd_epi32(sum[query][block], codes[block], four);
            }
        }
#pragma GCC unroll 4
        for (int query = 0; query < kSet; ++query)
#pragma GCC unroll 6
            for (int block = 0; block < kWide; ++block)
                _mm512_storeu_si512(sums + (query * blocks + first + block) * kLanes, sum[query][block]);
    }
}

TARGET inline __m512d eight(const float* row, __mmask8 there) {
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(there, row));
}
TARGET inline __m512d eight(const uint16_t* row, __mmask8 there) {
    return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_maskz_loadu_epi16(there, row)));
}
TARGET inline __m512d eight(const int8_t* row, __mmask8 there) {
    return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_maskz_loadu_epi8(there, row)));
}

template <bool DISTANCE> TARGET inline __m512d add(__m512d sum, __m512d x, __m512d y) {
    if (!DISTANCE) return _mm512_fmadd_pd(x, y, sum);
    const __m512d apart = _mm512_sub_pd(x, y);
    return _mm512_fmadd_pd(apart, apart, sum);
}

template <typename T, bool DISTANCE>
TARGET double score(const void* data, const double* query, int64_t dim) {
    const T* row = static_cast<const T*>(data);
    __m512d sums[4];
    for (auto& sum : sums) sum = _mm512_setzero_pd();
    int64_t i = 0;
    for (; i + 32 <= dim; i += 32)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
            sums[j] =
                add<DISTANCE>(sums[j], eight(row + i + 8 * j, 0xff), _mm512_loadu_pd(query + i + 8 * j));
    for (; i < dim; i += 8) {
        const __mmask8 there = dim - i >= 8 ? 0xff : (1 << (dim - i)) - 1;
        sums[0] = add<DISTANCE>(sums[0], eight(row + i, there), _mm512_maskz_loadu_pd(there, query + i));
    }
    return _mm512_reduce_add_pd(
        _mm512_add_pd(_mm512_add_pd(sums[0], sums[1]), _mm512_add_pd(sums[2], sums[3])));
}

}  // namespace

const Level kAvx512 = {
    {{nullptr, scan<1, 1>, scan<1, 2>},
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
