// Rankings: dense ranks of numbers, and Kendall's S of two of them (concordant less discordant pairs), by counting
// inversions a byte of a rank at a time.
#include "rows.h"

#include <cstring>
#include <new>
#include <vector>

namespace {

using Counts = uint8_t __attribute__((vector_size(16)));  // one a value of four bits

constexpr int64_t kChunk = 255;  // what a count holds

// Row d has ones below d: added to counts of "seen and greater", it counts one more d.
struct Below {
    alignas(16) uint8_t rows[16][16];
    Below() {
        for (int d = 0; d < 16; ++d)
            for (int i = 0; i < 16; ++i) rows[d][i] = i < d;
    }
};
const Below kBelow;

// Of a chunk of values, how many were seen that are greater in a byte: in its high four bits, or in the low four
// where the high ones are equal.
struct Seen {
    alignas(16) uint8_t high[16] = {}, low[16][16] = {};

    uint32_t greater(uint32_t digit) const { return uint32_t(high[digit >> 4]) + low[digit >> 4][digit & 15]; }

    // `held` is the same as `high`, in a register: what is read of a vector just written would be waited for.
    void add(uint32_t digit, Counts& held) {
        Counts one, of_low;
        std::memcpy(&one, kBelow.rows[digit >> 4], sizeof one);
        held += one;
        std::memcpy(high, &held, sizeof held);
        std::memcpy(&one, kBelow.rows[digit & 15], sizeof one);
        std::memcpy(&of_low, low[digit >> 4], sizeof of_low);
        of_low += one;
        std::memcpy(low[digit >> 4], &of_low, sizeof of_low);
    }
};

// Pairs in falling order of the byte at `shift`, all of one chunk; its last value is not counted on.
uint64_t count_few(const uint32_t* values, int64_t count, int shift) {
    Seen seen;
    Counts held = {};
    uint64_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t digit = values[i] >> shift & 255;
        found += seen.greater(digit);
        seen.add(digit, held);
    }
    return found;
}

template <bool MOVE>
uint64_t count_byte(const uint32_t* values, int64_t count, int shift, uint32_t* moved, uint32_t* cursor) {
    if (!MOVE && count <= kChunk + 1) return count_few(values, count, shift);
    uint32_t before[256] = {};  // in earlier chunks, how many are greater than each byte
    uint64_t found = 0;
    for (int64_t start = 0; start < count; start += kChunk) {
        const uint32_t *first = values + start, *last = values + std::min(start + kChunk, count);
        Seen seen;
        Counts held = {};
        for (const uint32_t* value = first; value < last; ++value) {
            const uint32_t digit = *value >> shift & 255;
            found += uint64_t(before[digit]) + seen.greater(digit);
            seen.add(digit, held);
            if (MOVE) moved[cursor[digit]++] = *value;
        }
        for (uint32_t digit = 0; digit < 256; ++digit) before[digit] += seen.greater(digit);
    }
    return found;
}

// Ranks 0, 1, 2, ... of which none is left out; equal values share one.
struct Ranking {
    const int32_t* ranks;
    std::vector<uint32_t> starts;  // [rank]: how many values have a lower one; one more entry than ranks
    std::vector<uint32_t> order;   // the values in rising order
    uint64_t tied = 0;             // pairs of equal values

    Ranking(const int32_t* given, int64_t size) : ranks(given), order(size_t(size)) {
        const size_t most = size_t(*std::max_element(ranks, ranks + size));
        starts.assign(most + 2, 0);
        if (most + 1 == order.size()) {  // no two are equal
            for (size_t rank = 0; rank < starts.size(); ++rank) starts[rank] = uint32_t(rank);
            for (size_t i = 0; i < order.size(); ++i) order[size_t(ranks[i])] = uint32_t(i);
            return;
        }
        for (size_t i = 0; i < order.size(); ++i) ++starts[size_t(ranks[i]) + 1];
        for (size_t rank = 1; rank < starts.size(); ++rank) {
            tied += uint64_t(starts[rank]) * (uint64_t(starts[rank]) - 1) / 2;
            starts[rank] += starts[rank - 1];
        }
        std::vector<uint32_t> cursor(starts);
        for (size_t i = 0; i < order.size(); ++i) order[cursor[size_t(ranks[i])]++] = uint32_t(i);
    }

    uint32_t start_of(uint64_t rank) const { return starts[std::min<uint64_t>(rank, starts.size() - 1)]; }

    int top_shift() const {
        int shift = 0;
        while ((starts.size() - 2) >> (shift + 8)) shift += 8;
        return shift;
    }
};

// Inversions of those of the values whose rank begins as `first` does. They are sorted by the byte at `shift`
// on the way, so that they lie together where the ranks below that byte are counted.
uint64_t inversions(uint32_t* values, uint32_t* spare, const Ranking& ranking, uint64_t first, int shift) {
    const uint32_t begin = ranking.start_of(first), end = ranking.start_of(first + (uint64_t(256) << shift));
    if (end - begin < 2) return 0;
    if (shift == 0) return count_byte<false>(values + begin, end - begin, 0, nullptr, nullptr);
    uint32_t cursor[256];
    for (uint64_t digit = 0; digit < 256; ++digit) cursor[digit] = ranking.start_of(first + (digit << shift));
    uint64_t found = count_byte<true>(values + begin, end - begin, shift, spare, cursor);
    for (uint64_t digit = 0; digit < 256; ++digit)
        found += inversions(spare, values, ranking, first + (digit << shift), shift - 8);
    return found;
}

// Room for the values of one ranking in the order of another.
struct Desk {
    std::vector<uint32_t> values, spare, cursor;

    uint64_t discordant(const Ranking& by, const Ranking& of) {
        for (size_t i = 0; i < values.size(); ++i) values[i] = uint32_t(of.ranks[by.order[i]]);
        return inversions(values.data(), spare.data(), of, 0, of.top_shift());
    }

    // Both have ties: values that are equal in `by` are put in the order of `of`, so that none is inverted.
    uint64_t discordant(const Ranking& by, const Ranking& of, uint64_t& both) {
        cursor.assign(by.starts.begin(), by.starts.end());
        for (const uint32_t i : of.order) values[cursor[size_t(by.ranks[i])]++] = uint32_t(of.ranks[i]);
        both = 0;
        for (size_t rank = 0; rank + 1 < by.starts.size(); ++rank)
            for (uint32_t i = by.starts[rank] + 1, run = 0; i < by.starts[rank + 1]; ++i) {
                run = values[i] == values[i - 1] ? run + 1 : 0;
                both += run;
            }
        return inversions(values.data(), spare.data(), of, 0, of.top_shift());
    }

    int64_t concordance(const Ranking& a, const Ranking& b) {
        const uint64_t size = values.size();
        uint64_t both = 0, against;
        if (a.tied && b.tied) against = discordant(a, b, both);
        else against = a.tied ? discordant(b, a) : discordant(a, b);
        return int64_t(size * (size - 1) / 2 - a.tied - b.tied + both - 2 * against);
    }
};

// Numbers in rising order: by the upper half of their bits, a few bits at a time, then by what is left.
class Sorter {
    static constexpr int kBits = 11, kPasses = 3, kBuckets = 1 << kBits;
    static constexpr int64_t kFew = 1024;  // so few are sorted by comparing them

    std::vector<uint64_t> entries, spare;  // upper half of the bits of a number, and its position

    static uint64_t upper_half(double value) {
        uint64_t bits;
        value += 0.0;  // both zeros are one
        std::memcpy(&bits, &value, sizeof bits);
        return (bits >> 63 ? ~bits : bits | uint64_t(1) << 63) >> 32;
    }

    void sort_upper() {
        std::vector<uint32_t> starts(kPasses * kBuckets);
        for (const uint64_t entry : entries)
            for (int pass = 0; pass < kPasses; ++pass)
                ++starts[size_t(pass * kBuckets) + (entry >> (32 + kBits * pass) & (kBuckets - 1))];
        for (int pass = 0; pass < kPasses; ++pass) {
            uint32_t* start = starts.data() + pass * kBuckets;
            for (uint32_t bucket = 0, sum = 0; bucket < kBuckets; ++bucket) {
                const uint32_t count = start[bucket];
                start[bucket] = sum;
                sum += count;
            }
            for (const uint64_t entry : entries)
                spare[start[entry >> (32 + kBits * pass) & (kBuckets - 1)]++] = entry;
            entries.swap(spare);
        }
    }

public:
    explicit Sorter(int64_t size) : entries(size_t(size)), spare(size_t(size)) {}

    void rank(const double* values, int32_t* ranks) {
        const auto less = [values](uint64_t a, uint64_t b) { return values[uint32_t(a)] < values[uint32_t(b)]; };
        const int64_t size = int64_t(entries.size());
        for (int64_t i = 0; i < size; ++i) entries[size_t(i)] = upper_half(values[i]) << 32 | uint64_t(i);
        if (size <= kFew) {
            std::sort(entries.begin(), entries.end(), less);
        } else {
            sort_upper();
            for (auto begin = entries.begin(); begin != entries.end();) {
                auto end = begin + 1;
                while (end != entries.end() && *end >> 32 == *begin >> 32) ++end;
                if (end - begin > 1) std::sort(begin, end, less);
                begin = end;
            }
        }
        int32_t rank = 0;
        for (int64_t i = 0; i < size; ++i) {
            const uint32_t here = uint32_t(entries[size_t(i)]);
            if (i && values[here] != values[uint32_t(entries[size_t(i - 1)])]) ++rank;
            ranks[here] = rank;
        }
    }
};

}  // namespace

// Ranks from 0, equal numbers sharing one; `ranks` takes [rows][size]. No number is NaN.
EXPORT int64_t nestling_dense_ranks(int64_t size, const double* values, int64_t rows, int32_t* ranks) {
    try {
        Sorter sorter(size);
        for (int64_t row = 0; row < rows; ++row) sorter.rank(values + row * size, ranks + row * size);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// Ranks lie row by row, `size` a row, at least 1; `out` takes [rows of a][rows of b].
EXPORT int64_t nestling_concordance(int64_t size, const int32_t* a, int64_t rows_a, const int32_t* b,
                                    int64_t rows_b, int64_t* out) {
    try {
        Desk desk = {std::vector<uint32_t>(size_t(size)), std::vector<uint32_t>(size_t(size)), {}};
        std::vector<Ranking> others;
        others.reserve(size_t(rows_b));
        for (int64_t j = 0; j < rows_b; ++j) others.emplace_back(b + j * size, size);
        for (int64_t i = 0; i < rows_a; ++i) {
            const Ranking ranking(a + i * size, size);
            for (const Ranking& other : others) *out++ = desk.concordance(ranking, other);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
