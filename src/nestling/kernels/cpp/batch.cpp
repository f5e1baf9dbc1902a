// Many queries at once: codes are unpacked to bytes once for all of them, and compared as a product of matrices.
#include "search.h"

namespace nestling {
namespace {

constexpr int64_t kTileBytes = 1 << 18;     // stays in the second cache
constexpr int64_t kMostBlocks = 8 * kWide;  // of a tile: the sums of a set stay in the first cache
constexpr int64_t kBlocksAhead = 4;         // are fetched before they are unpacked
constexpr size_t kMostPostponed = 1 << 13;  // candidates of a query

struct alignas(64) Line {
    uint8_t bytes[64];
};

// One row that may be among the best of one query.
struct Doubt {
    int32_t row, query;
    bool operator<(const Doubt& other) const { return row != other.row ? row < other.row : query < other.query; }
};

struct Workspace {
    Room room;
    std::vector<Line> tile;
    std::vector<int8_t> sets;
    std::vector<int32_t> sums;
    std::vector<Candidate> candidates;
    std::vector<Doubt> doubts;
};

// One query among many. Rows that are likely to be among the best are verified at once, so that the threshold
// rises; the others wait until it is final.
class BatchedQuery : public Verifier {
public:
    using Verifier::Verifier;

    Probe probe(int32_t* sums) const { return {query_, 15 * sum_, (sure_ ? sure_ : likely_)[1], threshold_, sums}; }

    // Continues with the rows that survived a tile, by a bound that, where an exact answer is wanted, always holds.
    void follow(const Packed& codes, const Found& found, std::vector<Candidate>& candidates) {
        skip(found.skipped);
        candidates.clear();
        for (int64_t i = 0; i < found.count; ++i) {
            const int32_t row = found.rows[i];
            if (!may_be_found(row)) continue;
            const float bound = safe(found.bounds[i]);
            const float likely = sure_ ? safe(bound_of(codes, row, found.sums[i], 15 * sum_, likely_[1])) : bound;
            if (likely < threshold_) postpone(bound, row);
            else candidates.push_back({likely, row, bound});
        }
        for (size_t i = verify(candidates); i < candidates.size(); ++i)
            postpone(candidates[i].sure, candidates[i].row);
        if (postponed_.size() <= kMostPostponed) return;
        for (size_t i = verify(postponed_); i < postponed_.size(); ++i) skip(postponed_[i].bound);
        postponed_.clear();
    }

    // What waits and still reaches the threshold.
    void doubts(int32_t number, std::vector<Doubt>& doubts) {
        for (const Candidate& one : postponed_) {
            if (one.bound < threshold_) skip(one.bound);
            else doubts.push_back({one.row, number});
        }
    }

    using Verifier::verify;

    void answer(const NestlingAnswers& answers) {
        write(answers, std::min(codes_.last * kLanes, codes_.rows) - codes_.first * kLanes);
    }

private:
    void postpone(float bound, int32_t row) {
        if (bound < threshold_) skip(bound);
        else postponed_.push_back({bound, row, bound});
    }

    std::vector<Candidate> postponed_;
};

// Queries in sets, as the product reads them; what the last set has too few is zero.
void arrange(const NestlingQueries& queries, int64_t start, int64_t count, int64_t quads, std::vector<int8_t>& sets) {
    sets.assign(size_t((count + kSet - 1) / kSet * kSet * quads * 4), 0);
    for (int64_t i = 0; i < count; ++i) {
        const int8_t* codes = queries.codes + (start + i) * quads * 4;
        int8_t* place = sets.data() + i / kSet * kSet * quads * 4 + i % kSet * 4;
        for (int64_t quad = 0; quad < quads; ++quad) std::copy_n(codes + 4 * quad, 4, place + quad * kSet * 4);
    }
}

void unpack(const Level& level, const NestlingCodes& codes, int64_t first, int64_t last, uint8_t* tile) {
    const int64_t bytes = 64 * codes.lines;  // of a block, in either half
    for (int64_t block = first; block < last; ++block, tile += block_bytes(4 * codes.lines)) {
        const int64_t rows = codes.rows - block * kLanes, ahead = (block + kBlocksAhead) * bytes;
        for (int64_t i = ahead; i < ahead + bytes && rows >= (kBlocksAhead + 1) * kLanes; i += 64) {
            __builtin_prefetch(codes.coarse + i);
            __builtin_prefetch(codes.fine + i);
        }
        level.unpack({codes.coarse + block * bytes, codes.fine + block * bytes, codes.lines, rows}, tile);
    }
}

void scan(const Level& level, const NestlingCodes& codes, std::vector<BatchedQuery>& batched, Workspace& work) {
    const Packed all = {nullptr, codes.lines, codes.fine_scale, codes.fine_radius, codes.bias};
    const int64_t quads = 4 * codes.lines;
    const int64_t most = std::clamp(kTileBytes / block_bytes(quads) / kWide * kWide, kWide, kMostBlocks);
    work.tile.resize(size_t(most * block_bytes(quads) / 64));
    work.sums.resize(size_t(kSet * most * kLanes));
    uint8_t* tile = work.tile[0].bytes;
    int64_t step = kWide;  // few rows at first: they set the first threshold
    for (int64_t first = codes.first; first < codes.last; first += step, step = std::min(2 * step, most)) {
        const int64_t last = std::min(first + step, codes.last);
        unpack(level, codes, first, last, tile);
        for (size_t i = 0; i < batched.size(); ++i) {
            const int64_t within = int64_t(i) % kSet;
            if (!within) level.product(tile, step, quads, work.sets.data() + i * size_t(quads * 4), work.sums.data());
            Found found = {work.room.rows, work.room.sums, work.room.bounds, 0, kLowest};
            const Probe probe = batched[i].probe(work.sums.data() + within * step * kLanes);
            level.filter(all, first, last, probe, &found);
            batched[i].follow(all, found, work.candidates);
        }
    }
}

// Rows in doubt are read in the order in which they lie in memory: each once, for all queries.
void settle(const NestlingVectors& vectors, std::vector<BatchedQuery>& batched, std::vector<Doubt>& doubts) {
    doubts.clear();
    for (size_t i = 0; i < batched.size(); ++i) batched[i].doubts(int32_t(i), doubts);
    std::sort(doubts.begin(), doubts.end());
    for (size_t i = 0; i < doubts.size(); ++i) {
        if (i + kRowsAhead < doubts.size()) fetch(vectors, doubts[i + kRowsAhead].row);
        batched[size_t(doubts[i].query)].verify(doubts[i].row);
    }
}

}  // namespace

void search_batch(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
                  const NestlingQueries& queries, int64_t start, int64_t count, int64_t k,
                  const NestlingAnswers& answers) {
    Borrowed<Workspace> borrowed;
    Workspace& work = *borrowed;
    std::vector<BatchedQuery> batched;
    batched.reserve(size_t(count));
    for (int64_t i = 0; i < count; ++i) batched.emplace_back(level, vectors, codes, queries, start + i, k);
    arrange(queries, start, count, 4 * codes.lines, work.sets);
    scan(level, codes, batched, work);
    settle(vectors, batched, work.doubts);
    for (auto& query : batched) query.answer(answers);
}

}  // namespace nestling
