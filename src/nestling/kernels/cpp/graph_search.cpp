// Searching a graph: queries are encoded, a beam search finds candidates, and exact scores rank them.
#include "query_encoder.h"
#include "residuals.h"
#include "encoded_queries.h"

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

// Encodes `count` centred queries: Int8[count, width], Int32[count], Float32[count].
EXPORT int64_t nestling_graph_aim(int32_t level, const NestlingQueryEncoder* encoder, const double* rows, int64_t count,
                                  const float* weights, int64_t entries, int8_t* codes, int32_t* sums, float* scales) {
    try {
        QueryEncoder made;
        for (int64_t i = 0; i < count; ++i) {
            const EncodedQuery encoded =
                made.encode(level_of(level), *encoder, rows + i * entries, entries, weights[i]);
            std::copy(encoded.query, encoded.query + encoder->width, codes + i * encoder->width);
            sums[i] = encoded.offset / 3;
            scales[i] = encoded.scale;
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Candidates of every query by beam search, best estimate first: Int32[count, kept], padded with -1.
EXPORT int64_t nestling_graph_walk(int32_t level, const NestlingGraph* graph, const NestlingEncodedQueries* queries,
                                   int64_t ef, const uint8_t* allowed, int64_t kept, int32_t* found) {
    try {
        const auto write = [&](int64_t number, const Pool& pool) {
            for (int64_t i = 0; i < kept; ++i)
                found[number * kept + i] = size_t(i) < pool.size ? row_of(pool.keys[size_t(i)]) : -1;
        };
        const auto query_of = queries_of(*graph, *queries);
        search_together(level_of(level), *graph, queries->count, ef, allowed, kept, query_of, write);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// The k best of the `kept` best candidates of every query, by stored rows or by residuals.
// Says how many queries found fewer than k, or -2 less the number of the first that cannot be used.
EXPORT int64_t nestling_graph_search(int32_t number, const NestlingGraph* graph, const NestlingQueryEncoder* encoder,
                                     const NestlingVectors* vectors, const NestlingResiduals* residuals,
                                     const double* queries, int64_t count, int64_t ef, const uint8_t* allowed,
                                     int64_t kept, int64_t k, int64_t* indices, double* scores) {
    try {
        thread_local std::vector<QueryEncoder> encoders(static_cast<size_t>(kTogether));
        const Level& level = level_of(number);
        for (int64_t query = 0; query < count; ++query)
            if (!usable(*encoder, queries + query * encoder->dim)) return -2 - query;
        int64_t few = 0;
        const auto query_of = [&](int64_t query) {
            return encoders[size_t(query % kTogether)].encode_query(level, *encoder, queries + query * encoder->dim);
        };
        const auto use = [&](int64_t query, const Pool& pool) {
            const auto row_at = [&](int64_t i) { return int64_t(row_of(pool.keys[size_t(i)])); };
            const int64_t found = std::min(kept, int64_t(pool.size));
            int64_t* rows = indices + query * k;
            double* values = scores + query * k;
            QueryEncoder& own = encoders[size_t(query % kTogether)];
            const double* given = queries + query * encoder->dim;
            few += vectors ? !rank(StoredScore{level, *vectors, own.direct(*encoder, given)}, found, row_at, k, rows,
                                   values)
                           : !rank(ResidualScore(level, *graph, *encoder, *residuals, own, given), found, row_at, k,
                                   rows, values);
        };
        search_together(level, *graph, count, ef, allowed, kept, query_of, use);
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
