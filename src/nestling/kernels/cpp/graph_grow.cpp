// Building a graph: links of new rows are chosen among the candidates of a beam search.
#include "encoded_queries.h"

#include <new>

using namespace nestling;

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingWholeRows {
    int64_t dim;  // a multiple of 64
    const int8_t* values;
    const float *scales, *norms;  // per row; squared
};

namespace {

struct Near {
    float gap;  // squared distance
    int32_t row;
    bool operator<(const Near& other) const { return gap != other.gap ? gap < other.gap : row < other.row; }
};

constexpr int64_t kTogether = 8;  // rows that are compared before one of them is looked at

struct Growth {
    const Level& level;
    const NestlingGraph& graph;
    const NestlingWholeRows& full;
    float alpha;

    // Squared distances of a row to some others.
    void gaps(int32_t row, const int32_t* others, int64_t count, float* out) const {
        int32_t products[kTogether];
        for (int64_t start = 0; start < count; start += kTogether) {
            const int64_t some = std::min(kTogether, count - start);
            level.products(full.values + row * full.dim, full.values, full.dim, others + start, some, products);
            for (int64_t i = 0; i < some; ++i) {
                const int32_t other = others[start + i];
                const float twice = 2 * (full.scales[row] * full.scales[other]) * float(products[i]);
                out[start + i] = std::max(0.0f, full.norms[row] + full.norms[other] - twice);
            }
        }
    }

    void measure(int32_t row, const std::vector<int32_t>& others, std::vector<Near>& out) const {
        std::vector<float> found(others.size());
        gaps(row, others.data(), int64_t(others.size()), found.data());
        out.clear();
        for (size_t i = 0; i < others.size(); ++i) out.push_back({found[i], others[i]});
    }

    // Whether one of some rows is so much nearer to a candidate that it need not be linked itself.
    bool covered(const Near& candidate, const int32_t* rows, int64_t count) const {
        float found[kTogether];
        for (int64_t start = 0; start < count; start += kTogether) {
            const int64_t some = std::min(kTogether, count - start);
            gaps(candidate.row, rows + start, some, found);
            for (int64_t i = 0; i < some; ++i)
                if (alpha * found[i] < candidate.gap) return true;
        }
        return false;
    }

    // Links `row` with the nearest that no nearer one of them covers (DiskANN, algorithm 2).
    void choose(int32_t row, std::vector<Near>& candidates, int64_t most) const {
        std::sort(candidates.begin(), candidates.end());
        int32_t* links = graph.links + row * graph.degree;
        int64_t count = 0;
        for (const Near& each : candidates) {
            if (count == most) break;
            if (!covered(each, links, count)) links[count++] = each.row;
        }
        std::fill(links + count, links + graph.degree, -1);
    }

    // Links `to` with `from` as well; a full row is thinned out.
    void link_back(int32_t to, int32_t from, std::vector<int32_t>& rows, std::vector<Near>& candidates) const {
        int32_t* links = graph.links + to * graph.degree;
        int32_t* end = std::find(links, links + graph.degree, -1);
        if (end != links + graph.degree) {
            *end = from;
            return;
        }
        rows.assign(1, from);
        rows.insert(rows.end(), links, end);
        measure(to, rows, candidates);
        choose(to, candidates, graph.degree - graph.degree / 8);
    }
};

}  // namespace

// Finds and chooses links of new rows among the old ones. Different threads may do different new rows.
EXPORT int64_t nestling_graph_grow(int32_t level, const NestlingGraph* graph, const NestlingWholeRows* full,
                                   const NestlingEncodedQueries* queries, const int32_t* rows, int64_t ef,
                                   float alpha) {
    try {
        const Growth growth = {level_of(level), *graph, *full, alpha};
        std::vector<Near> candidates;
        std::vector<int32_t> met;
        const auto choose = [&](int64_t number, const Pool& pool) {
            const int32_t row = rows[number];
            met.clear();
            for (size_t i = 0; i < pool.size; ++i) met.push_back(row_of(pool.keys[i]));
            growth.measure(row, met, candidates);
            growth.choose(row, candidates, graph->degree);
        };
        search_together(growth.level, *graph, queries->count, ef, nullptr, 0, queries_of(*graph, *queries), choose);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Links what the new rows chose with them, in the order given.
EXPORT int64_t nestling_graph_link(int32_t level, const NestlingGraph* graph, const NestlingWholeRows* full,
                                   const int32_t* rows, int64_t count, float alpha) {
    try {
        const Growth growth = {level_of(level), *graph, *full, alpha};
        std::vector<int32_t> linked;
        std::vector<Near> candidates;
        for (int64_t i = 0; i < count; ++i) {
            const int32_t* links = graph->links + rows[i] * graph->degree;
            for (int64_t j = 0; j < graph->degree && links[j] >= 0; ++j)
                growth.link_back(links[j], rows[i], linked, candidates);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
