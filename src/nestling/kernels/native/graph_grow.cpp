// Growing a graph: links of new rows are chosen among what walks towards them meet.
#include "walks.h"

#include <new>

using namespace nestling;

// Filled in by Python; the fields and their order are those of nestling/kernels/walking_native.py.
struct NestlingFull {
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

struct Growth {
    const GraphSums& sums;
    const NestlingGraph& graph;
    const NestlingFull& full;
    float alpha;

    float gap(int32_t a, int32_t b) const {
        const int32_t product = sums.product(full.values + a * full.dim, full.values + b * full.dim, full.dim);
        const float twice = 2 * (full.scales[a] * full.scales[b]) * float(product);
        return std::max(0.0f, full.norms[a] + full.norms[b] - twice);
    }

    // Links `row` with the nearest that no nearer one of them covers (DiskANN, algorithm 2).
    void choose(int32_t row, std::vector<Near>& candidates, int64_t most) const {
        std::sort(candidates.begin(), candidates.end());
        int32_t* links = graph.links + row * graph.degree;
        int64_t count = 0;
        for (const Near& each : candidates) {
            if (count == most) break;
            bool covered = false;
            for (int64_t i = 0; i < count && !covered; ++i) covered = alpha * gap(each.row, links[i]) < each.gap;
            if (!covered) links[count++] = each.row;
        }
        std::fill(links + count, links + graph.degree, -1);
    }

    // Links `to` with `from` as well; a full row is thinned out.
    void link_back(int32_t to, int32_t from, std::vector<Near>& candidates) const {
        int32_t* links = graph.links + to * graph.degree;
        int32_t* end = std::find(links, links + graph.degree, -1);
        if (end != links + graph.degree) {
            *end = from;
            return;
        }
        candidates.assign(1, {gap(to, from), from});
        for (int32_t* each = links; each != end; ++each) candidates.push_back({gap(to, *each), *each});
        choose(to, candidates, graph.degree - graph.degree / 8);
    }
};

}  // namespace

// Finds and chooses links of new rows among the old ones. Different threads may do different new rows.
EXPORT int64_t nestling_graph_grow(int32_t level, const NestlingGraph* graph, const NestlingFull* full,
                                   const NestlingWalks* walks, const int32_t* rows, int64_t ef, float alpha) {
    try {
        const Growth growth = {graph_sums_of(level), *graph, *full, alpha};
        std::vector<Near> candidates;
        const auto choose = [&](int64_t number, const Pool& pool) {
            const int32_t row = rows[number];
            candidates.clear();
            for (size_t i = 0; i < pool.size; ++i)
                candidates.push_back({growth.gap(row, row_of(pool.keys[i])), row_of(pool.keys[i])});
            growth.choose(row, candidates, graph->degree);
        };
        walk_together(growth.sums, *graph, walks->count, ef, nullptr, 0, aims_of(*graph, *walks), choose);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Links what the new rows chose with them, in the order given.
EXPORT int64_t nestling_graph_link(int32_t level, const NestlingGraph* graph, const NestlingFull* full,
                                   const int32_t* rows, int64_t count, float alpha) {
    try {
        const Growth growth = {graph_sums_of(level), *graph, *full, alpha};
        std::vector<Near> candidates;
        for (int64_t i = 0; i < count; ++i) {
            const int32_t* links = graph->links + rows[i] * graph->degree;
            for (int64_t j = 0; j < graph->degree && links[j] >= 0; ++j)
                growth.link_back(links[j], rows[i], candidates);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
