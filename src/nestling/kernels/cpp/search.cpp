// The C interface, and the search that goes from coarse codes over fine ones to exact scores.
#include "search.h"

#include <algorithm>
#include <new>
#include <vector>

using namespace nestling;

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kBatch = 8, kLikelyBatch = 16;  // queries for which unpacking all codes pays: exact, likely
constexpr int64_t kMostAtOnce = 256;              // of a batch
constexpr int64_t kBlocksAtATime = Room::kBlocks;  // of 16 rows: half a megabyte of coarse codes of 256 dims
constexpr int64_t kFirstBlocks = 64;
constexpr int64_t kSavedRows = 1 << 18;  // one megabyte a query
constexpr int32_t kDone = -(1 << 29);       // less than any sum: the row was verified

constexpr int64_t kGroup = 16;  // queries for which a tile of codes stays in the cache

struct Scratch {
    Room rooms[kMostTogether];
    std::vector<int32_t> saved_sums[kGroup];
    std::vector<Candidate> candidates;
};

// One query that scans the codes. Likely bounds select rows first; their k-th best score is then high enough
// that bounds that always hold leave out most of the other rows.
class ScannedQuery : Verifier {
public:
    ScannedQuery(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
                 const NestlingQueries& queries, int64_t number, int64_t k, std::vector<int32_t>& saved_sums)
        : Verifier(level, vectors, codes, queries, number, k), saved_(saved_sums) {
        if (!sure_) return;
        const size_t rows = size_t(std::min((codes.last - codes.first) * kLanes, kSavedRows));
        if (saved_sums.size() < rows) saved_sums.resize(rows);
    }

    // Saved sums are from now on those of the rows behind this block.
    void open(int64_t block) { part_ = block; }

    Probe probe(int64_t block, bool final) const {
        int32_t* saved_sums = sure_ ? saved_.data() + (block - part_) * kLanes : nullptr;
        return {query_, 3 * sum_, (final && sure_ ? sure_ : likely_)[0], threshold_, saved_sums};
    }

    // The largest bound left out counts where no surer one follows.
    Found found(Room& room, bool final) const {
        return {room.rows, room.sums, nullptr, 0, final ? skipped_ : kHighest};
    }

    bool needs_proof() const { return sure_; }

    // Continues with the rows that survived a tile: bounds by all four bits, exact scores of rows that reach the threshold.
    void follow(Found found, Room& room, bool final, std::vector<Candidate>& candidates) {
        const Factors& factors = (final && sure_ ? sure_ : likely_)[1];
        drop(found, final && sure_);
        refined_ += found.count;
        found.bounds = room.bounds;
        const Fine fine = {codes_.fine, codes_.lines * 4, codes_.fine_scale, codes_.fine_radius, codes_.bias};
        level_.refine(fine, {query_, 15 * sum_, factors, threshold_, nullptr}, &found);
        candidates.clear();
        for (int64_t i = 0; i < found.count; ++i) candidates.push_back({safe(found.bounds[i]), found.rows[i], 0});
        const size_t verified = verify(candidates);
        for (size_t i = 0; sure_ && i < verified; ++i)
            saved_[size_t(candidates[i].row - part_ * kLanes)] = kDone;
        if (!final) return;
        skip(found.skipped);
        if (verified < candidates.size()) skip(candidates[verified].bound);
    }

    void answer(const NestlingAnswers& answers) { write(answers, refined_); }

private:
    // Leave out rows that only fill the last block, that may not be found, that were verified.
    void drop(Found& found, bool from_saved) const {
        while (found.count && found.rows[found.count - 1] >= codes_.rows) --found.count;
        if (!from_saved && !codes_.allowed) return;
        int64_t kept = 0;
        for (int64_t i = 0; i < found.count; ++i) {
            found.rows[kept] = found.rows[i];
            found.sums[kept] = found.sums[i];
            kept += found.sums[i] != kDone && may_be_found(found.rows[i]);
        }
        found.count = kept;
    }

    std::vector<int32_t>& saved_;
    int64_t part_ = 0, refined_ = 0;
};

void scan_together(const Level& level, const Packed& codes, int bits_log2, int64_t first, int64_t last,
                   const Probe* probes, Found* found, int64_t count) {
    const ScanFunction* scans = level.scan[bits_log2];
    for (int64_t start = 0; start < count;) {
        int64_t together = std::min<int64_t>(count - start, kMostTogether);
        while (!scans[together]) --together;
        scans[together](codes, first, last, probes + start, found + start);
        start += together;
    }
}

// Some queries, a few at a time, go through a tile of codes: by scanning it, or by their saved sums.
void visit(const Level& level, const Packed& codes, std::vector<ScannedQuery>& scanned, int64_t first, int64_t last,
           bool from_saved, bool final, Scratch& scratch) {
    Probe probes[kMostTogether];
    Found found[kMostTogether];
    for (size_t start = 0; start < scanned.size(); start += kMostTogether) {
        const size_t count = std::min<size_t>(kMostTogether, scanned.size() - start);
        for (size_t i = 0; i < count; ++i) {
            probes[i] = scanned[start + i].probe(first, final);
            found[i] = scanned[start + i].found(scratch.rooms[i], final);
            if (from_saved) level.filter(codes, first, last, probes[i], &found[i]);
        }
        if (!from_saved) scan_together(level, codes, 1, first, last, probes, found, int64_t(count));
        for (size_t i = 0; i < count; ++i)
            scanned[start + i].follow(found[i], scratch.rooms[i], final, scratch.candidates);
    }
}

void scan_all(const Level& level, const NestlingCodes& codes, std::vector<ScannedQuery>& scanned, Scratch& scratch) {
    const Packed packed = {codes.coarse, codes.lines, codes.coarse_scale, codes.coarse_radius, codes.bias};
    const bool proof = scanned[0].needs_proof();
    int64_t step = kFirstBlocks;
    for (int64_t part = codes.first; part < codes.last; part += kSavedRows / kLanes) {
        const int64_t end = std::min(part + kSavedRows / kLanes, codes.last);
        for (auto& query : scanned) query.open(part);
        for (int64_t first = part; first < end; first += step, step = kBlocksAtATime)
            visit(level, packed, scanned, first, std::min(first + step, end), false, !proof, scratch);
        if (!proof) continue;
        for (int64_t first = part; first < end; first += kBlocksAtATime)
            visit(level, packed, scanned, first, std::min(first + kBlocksAtATime, end), true, true, scratch);
    }
}

void search_few(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
                const NestlingQueries& queries, int64_t start, int64_t count, int64_t k,
                const NestlingAnswers& answers) {
    Borrowed<Scratch> borrowed;
    Scratch& scratch = *borrowed;
    std::vector<ScannedQuery> scanned;
    scanned.reserve(size_t(count));
    for (int64_t i = 0; i < count; ++i)
        scanned.emplace_back(level, vectors, codes, queries, start + i, k, scratch.saved_sums[i]);
    scan_all(level, codes, scanned, scratch);
    for (auto& query : scanned) query.answer(answers);
}

}  // namespace

// Which instruction sets this machine has: bit n for level n.
EXPORT int32_t nestling_levels() {
    int32_t levels = 1 << kPlainNumber;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        levels |= 1 << kAvx2Number;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vnni"))
            levels |= 1 << kAvx512Number;
    }
#endif
#if defined(NESTLING_NEON)
    if (has_neon()) levels |= 1 << kNeonNumber;
#endif
    return levels;
}

// The k best rows of every query; a row is left out only if a bound lies below the k-th best.
EXPORT int64_t nestling_search(int32_t number, const NestlingVectors* vectors, const NestlingCodes* codes,
                               const NestlingQueries* queries, int64_t k, const NestlingAnswers* answers) {
    try {
        const Level& level = level_of(number);
        for (int64_t start = 0, count; start < queries->count; start += count) {
            count = queries->count - start;
            const bool batch = count >= (queries->sure ? kBatch : kLikelyBatch);
            count = std::min(batch ? kMostAtOnce : kGroup, count);
            (batch ? search_batch : search_few)(level, *vectors, *codes, *queries, start, count, k, *answers);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Bounds (or, with gamma 0, estimates) of rows whose bound reaches each query's threshold, and the rows.
// `rows` and `bounds` hold `room` = blocks * 16 + 16 entries a query.
EXPORT int64_t nestling_scan(int32_t number, const uint8_t* blocks, int64_t rows, int64_t lines, int32_t bits,
                             const float* scale, const float* radius, const float* bias, int64_t queries,
                             const int8_t* codes, const int32_t* sums, const float* factors, int32_t* found_rows,
                             float* bounds, int64_t* counts) {
    try {
        const Packed packed = {blocks, lines, scale, radius, bias};
        const int bits_log2 = bits == 1 ? 0 : bits == 2 ? 1 : bits == 4 ? 2 : 3;
        const int64_t all = (rows + kLanes - 1) / kLanes, room = (all + 1) * kLanes;
        const int64_t width = lines * 32 / bits;
        std::vector<int32_t> scratch(size_t(room * queries));
        std::vector<Probe> probes;
        std::vector<Found> found;
        for (int64_t i = 0; i < queries; ++i) {
            const float* f = factors + 4 * i;
            const Factors bound = {f[0], f[1], f[2]};
            probes.push_back({codes + i * width, ((1 << bits) - 1) * sums[i], bound, f[3], nullptr});
            found.push_back({found_rows + i * room, scratch.data() + i * room, bounds + i * room, 0, kLowest});
        }
        for (int64_t first = 0; first < all; first += kBlocksAtATime)
            scan_together(level_of(number), packed, bits_log2, first, std::min(first + kBlocksAtATime, all),
                          probes.data(), found.data(), queries);
        for (int64_t i = 0; i < queries; ++i) {
            counts[i] = found[i].count;
            while (counts[i] && found_rows[i * room + counts[i] - 1] >= rows) --counts[i];
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// What calls and structures look like: `INTERFACE` of nestling/kernels/library.py, which is raised with each change.
EXPORT int32_t nestling_interface() { return 4; }

// Exact scores of given rows: inner products, or squared distances with the sign changed.
EXPORT void nestling_score(int32_t number, const NestlingVectors* vectors, const double* query,
                           const int64_t* rows, int64_t count, double* scores) {
    const Level& level = level_of(number);
    for (int64_t i = 0; i < count; ++i) {
        if (i + 4 < count) fetch(*vectors, rows[i + 4]);
        scores[i] = score_of(level, *vectors, rows[i], query);
    }
}
