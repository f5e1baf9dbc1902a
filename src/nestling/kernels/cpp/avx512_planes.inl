// What AVX-512 does in registers: `decode`, `gather` and `hamming` of planes.inl.

TARGET inline void decode_in_registers(const CellValues& cells, const uint8_t* codes, float* entries) {
    const __m128i shift = _mm_cvtsi64_si128(cells.shift);
    const bool few = cells.shift >= 4;
    const __m512 table = _mm512_maskz_loadu_ps(few ? (1u << (256 >> cells.shift)) - 1 : 0xffff, cells.values);
    for (int64_t i = 0; i < cells.dim; i += 16) {
        const __mmask16 there = cells.dim - i >= 16 ? 0xffff : __mmask16((1 << (cells.dim - i)) - 1);
        const __m512i cell = _mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there, codes + i)), shift);
        const __m512 value = few ? _mm512_permutexvar_ps(cell, table) : _mm512_i32gather_ps(cell, cells.values, 4);
        const __m512 scaled = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(there, cells.spread + i));
        const __m512 moved = _mm512_add_ps(scaled, _mm512_maskz_loadu_ps(there, cells.centre + i));
        _mm512_mask_storeu_ps(entries + i, there, moved);
    }
}

// Fields of WIDTH bits of two lines become fields of twice as many: the upper halves of both, and the lower ones.
template <int WIDTH> TARGET inline void join_fields(__m512i high, __m512i low, __m512i* out) {
    const __m512i upper = _mm512_set1_epi8(char(WIDTH == 1 ? 0xAA : WIDTH == 2 ? 0xCC : 0xF0));
    // Where the mask has a bit, the first; else the second.
    out[0] = _mm512_ternarylogic_epi64(upper, high, _mm512_srli_epi64(low, WIDTH), 0xCA);
    out[1] = _mm512_ternarylogic_epi64(upper, _mm512_slli_epi64(high, WIDTH), low, 0xCA);
}

template <int COUNT, int WIDTH> TARGET inline void join_lines_of(__m512i* lines) {
    if constexpr (WIDTH < COUNT) {
        __m512i out[COUNT];
#pragma GCC unroll 8
        for (int pair = 0; pair < COUNT; pair += 2 * WIDTH)
#pragma GCC unroll 4
            for (int i = 0; i < WIDTH; ++i)
                join_fields<WIDTH>(lines[pair + i], lines[pair + WIDTH + i], out + pair + 2 * i);
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) lines[i] = out[i];
        join_lines_of<COUNT, 2 * WIDTH>(lines);
    }
}

TARGET inline __m256i some_bytes(const uint8_t* plane, const uint8_t* from, __mmask32 there) {
    return plane ? _mm256_maskz_loadu_epi8(there, from) : _mm256_setzero_si256();
}

// 32 bytes of each of 16 rows of two planes: eight lines of the first, eight of the second.
TARGET inline void transpose_two(const uint8_t* a, const uint8_t* b, const PlaneRows& rows, __mmask32 there,
                                 __m512i* lines) {
#pragma GCC unroll 16
    for (int64_t row = 0; row < kLanes; ++row) {
        const int64_t offset = (row < rows.rows ? row : 0) * rows.stride;
        _mm_prefetch(reinterpret_cast<const char*>(a + offset + kBytesAhead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(b + offset + kBytesAhead), _MM_HINT_T0);
        lines[row] = _mm512_inserti64x4(_mm512_castsi256_si512(some_bytes(a, a + offset, there)),
                                        some_bytes(b, b + offset, there), 1);
    }
    transpose(lines);
}

template <int COUNT> TARGET void gather_planes(const PlaneRows& rows, uint8_t* block) {
    static_assert(kRowBytes == 32, "two planes of a row fill a register");
    for (int64_t at = 0; at < rows.bytes; at += kRowBytes) {
        const int64_t bytes = rows.bytes - at, last = bytes < kRowBytes ? (bytes + 3) / 4 : 8;
        const __mmask32 there = bytes < kRowBytes ? (1u << bytes) - 1 : ~0u;
        __m512i lines[(COUNT + 1) / 2][16];
        const auto from = [&](int plane) {
            return plane < COUNT && rows.planes[plane] ? rows.planes[plane] + at : nullptr;
        };
        for (int plane = 0; plane < COUNT; plane += 2)
            transpose_two(from(plane), from(plane + 1), rows, there, lines[plane / 2]);
        for (int64_t line = 0; line < last; ++line, block += 64 * COUNT) {
            __m512i some[COUNT];
            for (int plane = 0; plane < COUNT; ++plane) some[plane] = lines[plane / 2][plane % 2 * 8 + line];
            join_lines_of<COUNT, 1>(some);
            for (int i = 0; i < COUNT; ++i) _mm512_storeu_si512(block + 64 * i, some[i]);
        }
    }
}

TARGET inline void gather_in_registers(const PlaneRows& rows, uint8_t* block) {
    if (rows.count == 1) return gather_planes<1>(rows, block);
    if (rows.count == 2) return gather_planes<2>(rows, block);
    if (rows.count == 4) return gather_planes<4>(rows, block);
    return gather_planes<8>(rows, block);
}

#define COUNTING __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq")))

// The sums of eight registers of eight numbers.
COUNTING inline __m512i sums_of_eight(const __m512i* s) {
    __m512i pairs[4], fours[2];
    for (int i = 0; i < 4; ++i)
        pairs[i] = _mm512_add_epi64(_mm512_unpacklo_epi64(s[2 * i], s[2 * i + 1]),
                                    _mm512_unpackhi_epi64(s[2 * i], s[2 * i + 1]));
    for (int i = 0; i < 2; ++i)
        fours[i] = _mm512_add_epi64(_mm512_shuffle_i64x2(pairs[2 * i], pairs[2 * i + 1], 0x88),
                                    _mm512_shuffle_i64x2(pairs[2 * i], pairs[2 * i + 1], 0xdd));
    return _mm512_add_epi64(_mm512_shuffle_i64x2(fours[0], fours[1], 0x88),
                            _mm512_shuffle_i64x2(fours[0], fours[1], 0xdd));
}

COUNTING void count_in_registers(const BitRows& rows, int64_t count, const uint8_t* query, uint32_t* distances) {
    for (int64_t first = 0; first < count; first += 8) {
        __m512i sums[8];
        for (auto& sum : sums) sum = _mm512_setzero_si512();
        for (int64_t at = 0; at < rows.bytes; at += 64) {
            const int64_t bytes = rows.bytes - at;
            const __mmask64 there = bytes >= 64 ? ~0ull : (1ull << bytes) - 1;
            const __mmask64 last = bytes > 64 ? 0 : 1ull << (bytes - 1);
            const __m512i kept = _mm512_mask_set1_epi8(_mm512_set1_epi8(-1), last, char(rows.mask));
            const __m512i asked = _mm512_maskz_loadu_epi8(there, query + at);
#pragma GCC unroll 8
            for (int64_t i = 0; i < 8; ++i) {
                const int64_t row = first + i < count ? first + i : count - 1;
                const __m512i bits = _mm512_maskz_loadu_epi8(there, rows.rows + row * rows.stride + at);
                const __m512i differing = _mm512_and_si512(_mm512_xor_si512(bits, asked), kept);
                sums[i] = _mm512_add_epi64(sums[i], _mm512_popcnt_epi64(differing));
            }
        }
        const __mmask8 found = count - first >= 8 ? 0xff : __mmask8((1 << (count - first)) - 1);
        _mm256_mask_storeu_epi32(distances + first, found, _mm512_cvtepi64_epi32(sums_of_eight(sums)));
    }
}

void hamming_in_registers(const BitRows& rows, int64_t count, const uint8_t* query, uint32_t* distances) {
    static const bool counts = __builtin_cpu_supports("avx512vpopcntdq");
    return counts ? count_in_registers(rows, count, query, distances) : hamming(rows, count, query, distances);
}
