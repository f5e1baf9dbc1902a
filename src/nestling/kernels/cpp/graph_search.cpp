// Searching with a graph: a query is aimed, walks, and the best rows it met are put in order by exact scores.
#include "lens.h"
#include "residuals.h"
#include "walks.h"

#include <new>

using namespace nestling;

namespace {

constexpr int64_t kRankAhead = 6;

using Ranked = std::vector<std::pair<double, int64_t>>;  // the score with its sign changed, and the row

struct StoredScore {
    const Level& level;
    const NestlingVectors& vectors;
    const double* query;

    void fetch(int64_t row) const { nestling::fetch(vectors, row); }
    double operator()(int64_t row) const { return score_of(level, vectors, row, query); }
};

// The k best of some rows; of equal scores the lower row. Says whether there are as many.
template <typename Score, typename RowOf>
bool rank(Score score, int64_t count, RowOf row_at, int64_t k, int64_t* indices, double* scores) {
    thread_local Ranked found;
    found.clear();
    for (int64_t i = 0; i < std::min(kRankAhead, count); ++i) score.fetch(row_at(i));
    for (int64_t i = 0; i < count; ++i) {
        if (i + kRankAhead < count) score.fetch(row_at(i + kRankAhead));
        found.emplace_back(-score(row_at(i)), row_at(i));
    }
    const int64_t kept = std::min(k, count);
    std::partial_sort(found.begin(), found.begin() + kept, found.end());
    for (int64_t i = 0; i < k; ++i) {
        indices[i] = i < kept ? found[size_t(i)].second : -1;
        scores[i] = i < kept ? -found[size_t(i)].first : std::numeric_limits<double>::quiet_NaN();
    }
    return kept == k;
}

}  // namespace

// Where walks towards `count` rows of a frame go: Int8[count, width], Int32[count], Float32[count].
EXPORT int64_t nestling_graph_aim(int32_t level, const NestlingLens* lens, const double* rows, int64_t count,
                                  const float* weights, int64_t entries, int8_t* codes, int32_t* sums, float* scales) {
    try {
        Lens made;
        for (int64_t i = 0; i < count; ++i) {
            const Aim aim = made.aim(level_of(level), *lens, rows + i * entries, entries, weights[i]);
            std::copy(aim.query, aim.query + lens->width, codes + i * lens->width);
            sums[i] = aim.offset / 3;
            scales[i] = aim.scale;
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Rows that a walk meets for every query, the most promising first: Int32[count, kept], -1 where fewer.
EXPORT int64_t nestling_graph_walk(int32_t level, const NestlingGraph* graph, const NestlingWalks* walks,
                                   int64_t ef, const uint8_t* allowed, int64_t kept, int32_t* found) {
    try {
        const auto write = [&](int64_t number, const Pool& pool) {
            for (int64_t i = 0; i < kept; ++i)
                found[number * kept + i] = size_t(i) < pool.size ? row_of(pool.keys[size_t(i)]) : -1;
        };
        const auto aim_of = aims_of(*graph, *walks);
        walk_together(level_of(level), *graph, walks->count, ef, allowed, kept, aim_of, write);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// The k best of the `kept` most promising rows that walks towards queries meet, by stored rows or by residuals.
// Says how many queries found fewer than k, or -2 less the number of the first that cannot be used.
EXPORT int64_t nestling_graph_search(int32_t number, const NestlingGraph* graph, const NestlingLens* lens,
                                     const NestlingVectors* vectors, const NestlingResiduals* residuals,
                                     const double* queries, int64_t count, int64_t ef, const uint8_t* allowed,
                                     int64_t kept, int64_t k, int64_t* indices, double* scores) {
    try {
        thread_local std::vector<Lens> lenses(static_cast<size_t>(kTogether));
        const Level& level = level_of(number);
        for (int64_t query = 0; query < count; ++query)
            if (!usable(*lens, queries + query * lens->dim)) return -2 - query;
        int64_t few = 0;
        const auto aim_of = [&](int64_t query) {
            return lenses[size_t(query % kTogether)].aim_at(level, *lens, queries + query * lens->dim);
        };
        const auto use = [&](int64_t query, const Pool& pool) {
            const auto row_at = [&](int64_t i) { return int64_t(row_of(pool.keys[size_t(i)])); };
            const int64_t found = std::min(kept, int64_t(pool.size));
            int64_t* rows = indices + query * k;
            double* values = scores + query * k;
            Lens& own = lenses[size_t(query % kTogether)];
            const double* given = queries + query * lens->dim;
            few += vectors ? !rank(StoredScore{level, *vectors, own.direct(*lens, given)}, found, row_at, k, rows,
                                   values)
                           : !rank(ResidualScore(level, *graph, *lens, *residuals, own, given), found, row_at, k,
                                   rows, values);
        };
        walk_together(level, *graph, count, ef, allowed, kept, aim_of, use);
        return few;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// The k best of every query's candidates (-1 is none) by exact scores; of equal ones the lower row.
EXPORT int64_t nestling_rank(int32_t number, const NestlingVectors* vectors, const double* queries, int64_t count,
                             const int32_t* candidates, int64_t length, int64_t k, int64_t* indices,
                             double* scores) {
    try {
        for (int64_t query = 0; query < count; ++query) {
            const int32_t* rows = candidates + query * length;
            const auto row_at = [&](int64_t i) { return int64_t(rows[i]); };
            const StoredScore score = {level_of(number), *vectors, queries + query * vectors->dim};
            rank(score, std::find(rows, rows + length, -1) - rows, row_at, k, indices + query * k,
                 scores + query * k);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
