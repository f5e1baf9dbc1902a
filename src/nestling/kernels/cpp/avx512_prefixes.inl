// Products at many prefixes at once, and the rows that they leave; a part of avx512.cpp.

// How far the upper bounds of 16 rows lie above the threshold.
TARGET inline __m512 reach_of(const Limits& limits, __m512i sums, const float* lengths, const float* doubts) {
    __m512 rest = all(limits.offset);
    if (doubts) rest = multiply_add(all(limits.length), load(doubts), rest);
    rest = _mm512_fnmadd_ps(all(limits.threshold), load(lengths), rest);
    return multiply_add(all(limits.step), _mm512_cvtepi32_ps(sums), rest);
}

TARGET inline int64_t hits_of(const Limits& limits, int64_t number, const int32_t* sums, const float* lengths,
                              const float* doubts, Hit* hits) {
    int64_t count = 0;
    for (int64_t row = 0; row < kWide * kLanes; row += kLanes) {
        const __m512 reach =
            reach_of(limits, _mm512_load_si512(sums + row), lengths + row, doubts ? doubts + row : nullptr);
        for (uint32_t left = _mm512_cmp_ps_mask(reach, all(0), _CMP_GE_OQ); left; left &= left - 1, ++count) {
            const int64_t here = row + __builtin_ctz(left);
            hits[count] = {int32_t(number), int32_t(here), sums[here]};
        }
    }
    return count;
}

// The hits of the queries whose extremes may reach their thresholds.
TARGET __attribute__((noinline)) int64_t all_hits(const PrefixTile& tile, int64_t size, const uint32_t* may_reach,
                                                  const int32_t* sums, const Limits* limits, Hit* hits) {
    const int64_t settings = tile.sizes * tile.kinds;
    int64_t found = 0;
    for (int64_t query = 0; query < kSet; ++query) {
        if (!may_reach[query]) continue;
        for (int64_t setting = size; setting < settings; setting += tile.sizes) {
            const int64_t at = setting * tile.stride, number = query * settings + setting;
            found += hits_of(limits[number], number, sums + query * kWide * kLanes, tile.lengths + at,
                             tile.doubts ? tile.doubts + at : nullptr, hits + found);
        }
    }
    return found;
}

// A bound of the largest of six sums, with the extremes of their rows, is below the threshold for most.
TARGET inline uint32_t may_reach(const Extremes& extremes, const Limits& limits, int64_t setting, __m512i largest) {
    const float* lengths = (limits.threshold < 0 ? extremes.longest : extremes.shortest) + setting * kLanes;
    const float* doubts = extremes.doubts ? extremes.doubts + setting * kLanes : nullptr;
    return _mm512_cmp_ps_mask(reach_of(limits, largest, lengths, doubts), all(0), _CMP_GE_OQ);
}

// Adds the products of some quads to sums, [query][row], and gives the largest of each query and lane. The sums are in
// registers, of which none is left for anything else.
TARGET __attribute__((noinline)) void add_products(const PrefixTile& tile, int64_t first, int64_t last, const int8_t* set,
                                                   int32_t* sums, __m512i* largest) {
    const int64_t bytes = block_bytes(tile.quads);
    __m512i sum[kSet][kWide];
#pragma GCC unroll 4
    for (int query = 0; query < kSet; ++query)
#pragma GCC unroll 6
        for (int block = 0; block < kWide; ++block)
            sum[query][block] = _mm512_load_si512(sums + (query * kWide + block) * kLanes);
    for (int64_t quad = first; quad < last; ++quad) {
        __m512i levels[kWide];
#pragma GCC unroll 6
        for (int block = 0; block < kWide; ++block)
            levels[block] = _mm512_load_si512(tile.codes + block * bytes + 64 * quad);
#pragma GCC unroll 4
        for (int query = 0; query < kSet; ++query) {
            const __m512i four = broadcast(set + (quad * kSet + query) * 4);
#pragma GCC unroll 6
            for (int block = 0; block < kWide; ++block)
                add_product(sum[query][block], levels[block], four);
        }
    }
#pragma GCC unroll 4
    for (int query = 0; query < kSet; ++query) {
        const __m512i* of = sum[query];
        largest[query] = _mm512_max_epi32(_mm512_max_epi32(_mm512_max_epi32(of[0], of[1]), _mm512_max_epi32(of[2], of[3])),
                                          _mm512_max_epi32(of[4], of[5]));
#pragma GCC unroll 6
        for (int block = 0; block < kWide; ++block)
            _mm512_store_si512(sums + (query * kWide + block) * kLanes, of[block]);
    }
}

TARGET int64_t prefixes(const PrefixTile& tile, const int8_t* set, const Limits* limits, Hit* hits) {
    const int64_t settings = tile.sizes * tile.kinds;
    alignas(64) int32_t sums[kSet * kWide * kLanes] = {};
    __m512i largest[kSet];
    int64_t quad = 0, found = 0;
    for (int64_t size = 0; size < tile.sizes; quad = tile.edges[size++]) {
        add_products(tile, quad, tile.edges[size], set, sums, largest);
        uint32_t reaching[kSet] = {}, any = 0;
        for (int64_t query = 0; query < kSet; any |= reaching[query++])
            for (int64_t setting = size; setting < settings; setting += tile.sizes)
                reaching[query] |= may_reach(tile.extremes, limits[query * settings + setting], setting, largest[query]);
        if (__builtin_expect(any != 0, 0)) found += all_hits(tile, size, reaching, sums, limits, hits + found);
    }
    return found;
}
