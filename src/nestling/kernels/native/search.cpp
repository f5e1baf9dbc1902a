// The C interface, and the search that goes from coarse codes over fine ones to exact scores.
#include "rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

using namespace nestling;

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kBlocksAtATime = 512;  // of 16 rows: half a megabyte of coarse codes of 256 dims
constexpr int64_t kFirstBlocks = 64;
constexpr int64_t kLedgerRows = 1 << 18;  // one megabyte a query
constexpr int32_t kDone = -(1 << 29);       // less than any sum: the row was verified

}  // namespace

// ---- what Python fills in; the fields and their order are those of nestling/kernels/native.py ----

struct NestlingCodes {
    int64_t rows, lines;
    const uint8_t *coarse, *fine;
    const float *coarse_scale, *coarse_radius, *fine_scale, *fine_radius, *bias;
    const uint8_t* allowed;  // per row, or null
};

struct NestlingQueries {
    int64_t count;
    const int8_t* codes;     // [count, lines * 16]
    const int32_t* sums;     // of the codes
    const float* likely;     // [count, 2, 3]: alpha, beta, gamma of a bound by coarse and by fine codes
    const float* sure;       // the same of bounds that always hold, or null
    const double* exact;     // [count, dim]
    const double* bounds;    // [count, 3]: a score s meets bounds as s * [0] + [1], to within [2]
};

struct NestlingAnswers {
    int64_t* indices;  // [count, k], best first, -1 where there are fewer
    double* scores;
    int64_t *refined, *verified;
    double* skipped;  // largest bound of what was not verified, in the terms of the bounds
};

namespace {

struct Scored {
    double score;
    int64_t row;
    // Better ones first; of equal scores the row that stands first.
    bool operator<(const Scored& other) const {
        return score != other.score ? score > other.score : row < other.row;
    }
};

// The k best so far: a heap with the worst of them on top.
class Best {
public:
    explicit Best(int64_t k) : k_(size_t(k)) { heap_.reserve(k_); }
    void offer(Scored one) {
        if (heap_.size() == k_) {
            if (!(one < heap_.front())) return;
            std::pop_heap(heap_.begin(), heap_.end());
            heap_.back() = one;
        } else {
            heap_.push_back(one);
        }
        std::push_heap(heap_.begin(), heap_.end());
    }
    bool full() const { return heap_.size() == k_; }
    double worst() const { return heap_.front().score; }
    void write(int64_t* rows, double* scores) {
        std::sort_heap(heap_.begin(), heap_.end());
        for (size_t i = 0; i < k_; ++i) {
            rows[i] = i < heap_.size() ? heap_[i].row : -1;
            scores[i] = i < heap_.size() ? heap_[i].score : std::numeric_limits<double>::quiet_NaN();
        }
    }

private:
    size_t k_;
    std::vector<Scored> heap_;
};

struct Candidate {
    float bound;
    int32_t row;
    bool operator<(const Candidate& other) const { return bound > other.bound; }
};

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kHighest = std::numeric_limits<float>::infinity();

constexpr int64_t kGroup = 16;  // queries for which a tile of codes stays in the cache

// Room for the survivors of a tile; whole registers are stored.
struct Room {
    static constexpr size_t kSize = (kBlocksAtATime + 1) * kLanes;
    int32_t rows[kSize], sums[kSize];
    float bounds[kSize];
};

// Memory that a thread uses again: fresh pages for every query would cost as much as half a scan.
struct Scratch {
    Room rooms[kMostTogether];
    std::vector<int32_t> ledgers[kGroup];
    std::vector<Candidate> candidates;
};

// One query on its way through the codes. First it goes after the rows whose bound is likely to hold and
// reaches the k-th best score; that score is then high enough to leave out most rows by bounds that are sure.
class Pursuit {
public:
    Pursuit(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
            const NestlingQueries& queries, int64_t number, int64_t k, std::vector<int32_t>& ledger)
        : level_(level), vectors_(vectors), codes_(codes), ledger_(ledger), best_(k) {
        query_ = queries.codes + number * codes.lines * 16;
        sum_ = queries.sums[number];
        likely_ = reinterpret_cast<const Factors*>(queries.likely) + number * 2;
        sure_ = queries.sure ? reinterpret_cast<const Factors*>(queries.sure) + number * 2 : nullptr;
        exact_ = queries.exact + number * vectors.dim;
        map_ = queries.bounds + number * 3;
        if (!sure_) return;
        const size_t rows = size_t(std::min((codes.rows + kLanes - 1) / kLanes * kLanes, kLedgerRows));
        if (ledger.size() < rows) ledger.resize(rows);
    }

    // The rows that the ledger is about from now on begin with this block.
    void open(int64_t block) { chapter_ = block; }

    Probe probe(int64_t block, bool final) const {
        int32_t* ledger = sure_ ? ledger_.data() + (block - chapter_) * kLanes : nullptr;
        return {query_, 3 * sum_, (final && sure_ ? sure_ : likely_)[0], threshold_, ledger};
    }

    // The largest bound left out counts where no surer one follows.
    Found found(Room& room, bool final) const {
        return {room.rows, room.sums, nullptr, 0, final ? skipped_ : kHighest};
    }

    bool needs_proof() const { return sure_; }

    // Go on with what survived a tile: bounds by all four bits, exact scores of rows that reach the threshold.
    void follow(Found found, Room& room, bool final, std::vector<Candidate>& candidates) {
        const Factors& factors = (final && sure_ ? sure_ : likely_)[1];
        drop(found, final && sure_);
        refined_ += found.count;
        found.bounds = room.bounds;
        const Fine fine = {codes_.fine, codes_.lines * 4, codes_.fine_scale, codes_.fine_radius, codes_.bias};
        level_.refine(fine, {query_, 15 * sum_, factors, threshold_, nullptr}, &found);
        candidates.clear();
        for (int64_t i = 0; i < found.count; ++i)  // what is no number bounds nothing
            candidates.push_back({std::isnan(found.bounds[i]) ? kHighest : found.bounds[i], found.rows[i]});
        std::sort(candidates.begin(), candidates.end());
        for (size_t i = 0; i < candidates.size(); ++i) {
            if (candidates[i].bound < threshold_) {
                found.skipped = std::max(found.skipped, candidates[i].bound);
                break;
            }
            if (i + 3 < candidates.size()) fetch(vectors_, candidates[i + 3].row);
            verify(candidates[i].row);
        }
        if (final) skipped_ = found.skipped;
    }

    void answer(const NestlingAnswers& answers, int64_t number, int64_t k) {
        best_.write(answers.indices + number * k, answers.scores + number * k);
        answers.refined[number] = refined_;
        answers.verified[number] = verified_;
        answers.skipped[number] = skipped_;
    }

private:
    // Leave out rows that only fill the last block, that may not be found, that were verified.
    void drop(Found& found, bool from_ledger) const {
        while (found.count && found.rows[found.count - 1] >= codes_.rows) --found.count;
        if (!from_ledger && !codes_.allowed) return;
        int64_t kept = 0;
        for (int64_t i = 0; i < found.count; ++i) {
            found.rows[kept] = found.rows[i];
            found.sums[kept] = found.sums[i];
            kept += found.sums[i] != kDone && (!codes_.allowed || codes_.allowed[found.rows[i]]);
        }
        found.count = kept;
    }

    void verify(int64_t row) {
        ++verified_;
        if (sure_) ledger_[size_t(row - chapter_ * kLanes)] = kDone;
        best_.offer({score_of(level_, vectors_, row, exact_), row});
        if (!best_.full()) return;
        const double own = best_.worst() * map_[0];
        const double least = own + map_[1] - map_[2] - 4e-7 * (std::fabs(own) + std::fabs(map_[1]));
        threshold_ = std::fabs(least) < 1e38 ? float(least) : kLowest;
    }

    const Level& level_;
    const NestlingVectors& vectors_;
    const NestlingCodes& codes_;
    std::vector<int32_t>& ledger_;
    Best best_;
    const int8_t* query_;
    int32_t sum_;
    const Factors *likely_, *sure_;
    const double *exact_, *map_;
    int64_t chapter_ = 0;
    float threshold_ = kLowest, skipped_ = kLowest;
    int64_t refined_ = 0, verified_ = 0;
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

// Some queries, a few at a time, go through a tile of codes: by scanning them, or by their ledgers.
void visit(const Level& level, const Packed& codes, std::vector<Pursuit>& pursuits, int64_t first, int64_t last,
           bool from_ledgers, bool final, Scratch& scratch) {
    Probe probes[kMostTogether];
    Found found[kMostTogether];
    for (size_t start = 0; start < pursuits.size(); start += kMostTogether) {
        const size_t count = std::min<size_t>(kMostTogether, pursuits.size() - start);
        for (size_t i = 0; i < count; ++i) {
            probes[i] = pursuits[start + i].probe(first, final);
            found[i] = pursuits[start + i].found(scratch.rooms[i], final);
            if (from_ledgers) level.sift(codes, first, last, probes[i], &found[i]);
        }
        if (!from_ledgers) scan_together(level, codes, 1, first, last, probes, found, int64_t(count));
        for (size_t i = 0; i < count; ++i)
            pursuits[start + i].follow(found[i], scratch.rooms[i], final, scratch.candidates);
    }
}

void pursue(const Level& level, const NestlingCodes& codes, std::vector<Pursuit>& pursuits, Scratch& scratch) {
    const Packed packed = {codes.coarse, codes.lines, codes.coarse_scale, codes.coarse_radius, codes.bias};
    const int64_t blocks = (codes.rows + kLanes - 1) / kLanes;
    const bool proof = pursuits[0].needs_proof();
    int64_t step = kFirstBlocks;
    for (int64_t chapter = 0; chapter < blocks; chapter += kLedgerRows / kLanes) {
        const int64_t end = std::min(chapter + kLedgerRows / kLanes, blocks);
        for (auto& pursuit : pursuits) pursuit.open(chapter);
        for (int64_t first = chapter; first < end; first += step, step = kBlocksAtATime)
            visit(level, packed, pursuits, first, std::min(first + step, end), false, !proof, scratch);
        if (!proof) continue;
        for (int64_t first = chapter; first < end; first += kBlocksAtATime)
            visit(level, packed, pursuits, first, std::min(first + kBlocksAtATime, end), true, true, scratch);
    }
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
    return levels;
}

// The k best rows of every query; a row is left out only if a bound lies below the k-th best.
EXPORT int64_t nestling_search(int32_t number, const NestlingVectors* vectors, const NestlingCodes* codes,
                               const NestlingQueries* queries, int64_t k, const NestlingAnswers* answers) {
    try {
        thread_local std::vector<Scratch> scratch(1);
        for (int64_t start = 0; start < queries->count; start += kGroup) {
            const int64_t count = std::min(kGroup, queries->count - start);
            std::vector<Pursuit> pursuits;
            pursuits.reserve(size_t(count));
            for (int64_t i = 0; i < count; ++i)
                pursuits.emplace_back(level_of(number), *vectors, *codes, *queries, start + i, k,
                                      scratch[0].ledgers[i]);
            pursue(level_of(number), *codes, pursuits, scratch[0]);
            for (int64_t i = 0; i < count; ++i) pursuits[size_t(i)].answer(*answers, start + i, k);
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

// Exact scores of given rows: inner products, or squared distances with the sign changed.
EXPORT void nestling_score(int32_t number, const NestlingVectors* vectors, const double* query,
                           const int64_t* rows, int64_t count, double* scores) {
    const Level& level = level_of(number);
    for (int64_t i = 0; i < count; ++i) {
        if (i + 4 < count) fetch(*vectors, rows[i + 4]);
        scores[i] = score_of(level, *vectors, rows[i], query);
    }
}
