// The kernels for AVX-512 with VNNI (Intel from Ice Lake on, AMD from Zen 4 on).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma,popcnt")))

namespace nestling {
namespace {

constexpr int kWidth = 16, kRegisters = 1, kSums = 4, kStep = 32;

using Ints = __m512i;
using Floats = __m512;
using Doubles = __m512d;
template <typename T> using Entries = Doubles[kSums];
using Codes = __m512i;
using Four = __m512i;

TARGET inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
TARGET inline __m512d load(const double* from) { return _mm512_loadu_pd(from); }
TARGET inline void store(int32_t* to, __m512i values) { _mm512_storeu_si512(to, values); }
TARGET inline __m512 all(float value) { return _mm512_set1_ps(value); }
TARGET inline __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
TARGET inline __m512d multiply_add(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
// Sums that stay in their registers: of as many, GCC 12 moves most at each use of `_mm512_dpbusd_epi32`.
TARGET inline void add_product(__m512i& sum, __m512i codes, __m512i entries) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(entries));
}
template <int BITS> inline int32_t first_sum(const int8_t*, int64_t) { return 0; }

TARGET inline __m512i load_codes(const uint8_t* line) {
    _mm_prefetch(reinterpret_cast<const char*>(line) + 4096, _MM_HINT_T0);
    return _mm512_loadu_si512(line);
}

// Codes stay where they are in their byte: what stands `shift` bits too high comes out 2^shift times too
// large in a sum of its own, and is shifted back once a block. That saves the shifts of every line.
template <int BITS> TARGET inline __m512i part_of(__m512i whole, int part) {
    return BITS == 8 ? whole : _mm512_and_si512(whole, _mm512_set1_epi8(char(((1 << BITS) - 1) << (part * BITS))));
}

template <int BITS> struct Sums {
    __m512i parts[8 / BITS];

    TARGET void start(int32_t begin) {
        for (auto& part : parts) part = _mm512_set1_epi32(begin);
    }
    TARGET void add(int part, __m512i code, __m512i query) {
        parts[part] = _mm512_dpbusd_epi32(parts[part], code, query);
    }
    TARGET __m512i total() const {
        __m512i sum = parts[0];
        for (int part = 1; part < 8 / BITS; ++part)
            sum = _mm512_add_epi32(sum, _mm512_srai_epi32(parts[part], part * BITS));
        return sum;
    }
};

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

TARGET inline void sort_out_some(__m512i rows, __mmask16 there, __m512i sums, __m512 bounds, float threshold,
                                 Found& found) {
    const __mmask16 kept = _mm512_mask_cmp_ps_mask(there, bounds, _mm512_set1_ps(threshold), _CMP_NLT_UQ);
    const __m512 skipped = _mm512_set1_ps(found.skipped);
    const __mmask16 higher = _mm512_mask_cmp_ps_mask(there & ~kept, bounds, skipped, _CMP_GT_OQ);
    if (higher) found.skipped = _mm512_mask_reduce_max_ps(higher, bounds);
    if (kept) append(found, kept, rows, sums, bounds);
}

TARGET inline __m512 steps_of(__m512i sums, int32_t offset) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_slli_epi32(sums, 1), _mm512_set1_epi32(offset)));
}

TARGET inline __m512i rows_of(int64_t row) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(lanes, _mm512_set1_epi32(int32_t(row)));
}

TARGET inline void sort_out(int64_t row, __m512i sums, __m512 bounds, float threshold, Found& found) {
    sort_out_some(rows_of(row), 0xffff, sums, bounds, threshold, found);
}

// The totals of four registers side by side.
TARGET inline __m128i totals(const __m512i* s) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
    const __m512i both = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// Four rows at a time: they share the reading of the query and the sums across registers.
template <int64_t STRIDE>
TARGET inline __m128i sums_of_four(const uint8_t* const rows[4], int64_t any_stride, const int8_t* query) {
    const int64_t stride = STRIDE ? STRIDE : any_stride;
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
    return totals(sums);
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

// The low bits of a block lie row by row; they are transposed, so that four bytes of 16 rows lie together.
TARGET inline void transpose_low_bits(const Halves& halves, uint8_t* block) {
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

TARGET void unpack_lines(const Halves& halves, uint8_t* block) {
    transpose_low_bits(halves, block);
    int64_t i = halves.lines - 1;
    int up = 3;
    uint8_t* out = block + (4 * halves.lines - 1) * 64;
    for (int64_t line = halves.lines - 1; line >= 0; --line) {  // falling, as the low bits lie in front
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
                    add_product(sum[query][block], codes[block], four);
            }
        }
#pragma GCC unroll 4
        for (int query = 0; query < kSet; ++query)
#pragma GCC unroll 6
            for (int block = 0; block < kWide; ++block)
                _mm512_storeu_si512(sums + (query * blocks + first + block) * kLanes, sum[query][block]);
    }
}

#include "avx512_prefixes.inl"

TARGET inline __m512d eight(const float* row, __mmask8 there) {
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(there, row));
}
TARGET inline __m512d eight(const uint16_t* row, __mmask8 there) {
    return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_maskz_loadu_epi16(there, row)));
}
TARGET inline __m512d eight(const int8_t* row, __mmask8 there) {
    return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_maskz_loadu_epi8(there, row)));
}

template <typename T> TARGET inline void load_entries(const T* row, __m512d* entries) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) entries[j] = eight(row + 8 * j, 0xff);
}

template <typename T, bool DISTANCE>
TARGET inline double finish(__m512d* sums, const T* row, const double* query, int64_t count) {
    for (int64_t i = 0; i < count; i += 8) {
        const __mmask8 there = count - i >= 8 ? 0xff : (1 << (count - i)) - 1;
        const __m512d x = eight(row + i, there), y = _mm512_maskz_loadu_pd(there, query + i), apart = x - y;
        sums[0] = DISTANCE ? multiply_add(apart, apart, sums[0]) : multiply_add(x, y, sums[0]);
    }
    return _mm512_reduce_add_pd(
        _mm512_add_pd(_mm512_add_pd(sums[0], sums[1]), _mm512_add_pd(sums[2], sums[3])));
}

#include "level.inl"
#include "planes.inl"
#include "avx512_planes.inl"

// What does not change from block to block is held in registers: this is a sixth of a search in batches.
TARGET void filter_in_registers(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    const Packed packed = codes;
    const Factors factors = probe.factors;
    const int32_t *sums = probe.saved_sums, offset = probe.offset;
    const __m512 threshold = _mm512_set1_ps(probe.threshold);
    __m512 skipped = _mm512_set1_ps(found->skipped);
    for (int64_t block = first; block < last; ++block, sums += kLanes) {
        const __m512i sum = _mm512_loadu_si512(sums);
        const __m512 t = steps_of(sum, offset), bounds = bounds_of(packed, block * kLanes, t, factors);
        const __mmask16 kept = _mm512_cmp_ps_mask(bounds, threshold, _CMP_NLT_UQ);
        skipped = _mm512_mask_max_ps(skipped, ~kept, skipped, bounds);
        if (kept) append(*found, kept, rows_of(block * kLanes), sum, bounds);
    }
    found->skipped = _mm512_reduce_max_ps(skipped);
}

TARGET inline __m512 numbers_of(const float* values, __m512i rows, __mmask16 there) {
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, rows, values, 4);
}

TARGET void refine_sixteen(const Fine& fine, const Probe& probe, Found* found) {
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
            _mm_store_si128(reinterpret_cast<__m128i*>(low + four), sums_of_four<0>(codes, fine.stride, probe.query));
        }
        sums = _mm512_add_epi32(sums, _mm512_maskz_loadu_epi32(there, low));
        const __m512 t = steps_of(sums, probe.offset);
        const __m512 steps = multiply_add(t, all(probe.factors.alpha), all(probe.factors.beta));
        __m512 rest = _mm512_mul_ps(numbers_of(fine.radius, rows, there), _mm512_set1_ps(probe.factors.gamma));
        if (fine.bias) rest = _mm512_add_ps(rest, numbers_of(fine.bias, rows, there));
        const __m512 bounds = _mm512_fmadd_ps(numbers_of(fine.scale, rows, there), steps, rest);
        sort_out_some(rows, there, sums, bounds, probe.threshold, *found);
    }
}

TARGET inline __m128 numbers(const uint8_t* const codes[4], int64_t at) {
    return _mm_setr_ps(number_of(codes[0], at), number_of(codes[1], at), number_of(codes[2], at),
                       number_of(codes[3], at));
}

// Codes of one line are most common; all of a query stays in registers then.
template <int64_t STRIDE>
TARGET int64_t strided_estimates(const CodedRows& coded, const EncodedQuery& encoded, const int32_t* rows,
                                 int64_t count, float threshold, const Estimates& out) {
    const int64_t stride = STRIDE ? STRIDE : coded.stride;
    const __m128i offset = _mm_set1_epi32(encoded.offset), lanes = _mm_setr_epi32(0, 1, 2, 3);
    const __m128 weight = _mm_set1_ps(encoded.weight), scale = _mm_set1_ps(encoded.scale);
    const __m128 least = _mm_set1_ps(threshold);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i += 4) {
        const uint8_t* codes[4];
        for (int64_t t = 0; t < 4; ++t) codes[t] = code_of(coded, rows, std::min(i + t, count - 1));
        const __m128i sums = sums_of_four<STRIDE>(codes, stride, encoded.query);
        const __m128i steps = _mm_sub_epi32(_mm_slli_epi32(sums, 1), offset);
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

TARGET int64_t estimates_of_four(const CodedRows& coded, const EncodedQuery& encoded, const int32_t* rows,
                                 int64_t count, float threshold, const Estimates& out) {
    const auto estimates = coded.stride == 64 ? strided_estimates<64> : strided_estimates<0>;
    return estimates(coded, encoded, rows, count, threshold, out);
}

TARGET void rotate_in_registers(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out) {
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
TARGET void products_of_four(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows,
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

}  // namespace

const Level kAvx512 = {
    {{nullptr, scan<1, 1>, scan<1, 2>},
     {nullptr, scan<2, 1>, scan<2, 2>, scan<2, 3>, scan<2, 4>},
     {nullptr, scan<4, 1>, scan<4, 2>, scan<4, 3>, scan<4, 4>},
     {nullptr, scan<8, 1>, scan<8, 2>, scan<8, 3>, scan<8, 4>}},
    filter_in_registers,
    refine_sixteen,
    unpack_lines,
    product,
    prefixes,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
    estimates_of_four,
    products_of_four,
    rotate_in_registers,
    encode,
    decode_in_registers,
    pack_planes,
    unpack_planes,
    gather_in_registers,
    level_codes,
    spread,
    near,
    hamming_in_registers,
};

}  // namespace nestling
#endif
