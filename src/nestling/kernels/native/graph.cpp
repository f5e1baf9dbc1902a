// A graph of rows walked by their 2-bit codes: growing it, and searching with it.
#include "graph_sums.h"
#include "rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

using namespace nestling;

// ---- what Python fills in; the fields and their order are those of nestling/kernels/walking_native.py ----

struct NestlingGraph {
    int64_t rows, stride, degree, hubs;
    const uint8_t* codes;      // [rows, stride]
    int32_t* links;            // [rows, degree], -1 where there are fewer
    const int32_t* hub_rows;   // [hubs]: where walks begin
    const uint8_t* hub_codes;  // [hubs, stride]
    int32_t biased;            // whether a row's line ends with its bias and factor, or its factor alone
};

struct NestlingWalks {
    int64_t count;
    const int8_t* codes;   // [count, 4 * stride]
    const int32_t* sums;   // of the codes
    const float* scales;   // of the codes
};

struct NestlingFull {
    int64_t dim;  // a multiple of 64
    const int8_t* values;
    const float *scales, *norms;  // per row; squared
};

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kTogether = 4;  // walks that take turns, so that one computes while others wait for memory
constexpr int64_t kEntries = 2;
constexpr int64_t kHubsAtATime = 256;
constexpr int64_t kRankAhead = 4;

// Estimates order rows as whole numbers do: the better the smaller. Of equal ones the lower row is better.
uint64_t key_of(float estimate, int32_t row) {
    const float turned = 0.0f - estimate;  // never minus zero
    uint32_t bits;
    std::memcpy(&bits, &turned, 4);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return uint64_t(bits) << 32 | uint64_t(uint32_t(row)) << 1;
}

int32_t row_of(uint64_t key) { return int32_t(uint32_t(key) >> 1); }

// The best keys so far, in order. The lowest bit says that the row's links were followed.
struct Pool {
    std::vector<uint64_t> keys;
    size_t size = 0, room = 0;

    void clear(int64_t most) {
        size = 0;
        room = size_t(most);
        if (keys.size() < room) keys.resize(room);
    }
    // Where the key went, or `room`.
    size_t insert(uint64_t key) {
        if (size == room && key >= keys[size - 1]) return room;
        const size_t at = size_t(std::lower_bound(keys.begin(), keys.begin() + int64_t(size), key) - keys.begin());
        size = std::min(size + 1, room);
        std::memmove(&keys[at] + 1, &keys[at], (size - 1 - at) * sizeof(uint64_t));
        keys[at] = key;
        return at;
    }
};

class Walker {
public:
    // `kept`: how many allowed rows are remembered beside those that lead on; without a mask they are the same.
    void start(const GraphSums& sums, const NestlingGraph& graph, const NestlingWalks& walks, int64_t number,
               int64_t ef, const uint8_t* allowed, int64_t kept) {
        sums_ = &sums;
        graph_ = &graph;
        allowed_ = allowed;
        query_ = walks.codes + number * 4 * graph.stride;
        offset_ = 3 * walks.sums[number];
        scale_ = walks.scales[number];
        seen_.assign(size_t(graph.rows + 63) / 64, 0);
        const size_t most = size_t(std::max(graph.degree, kHubsAtATime));
        if (met_.size() < most) met_.resize(most), totals_.resize(most);
        answers_.clear(allowed ? kept : 0);
        begin(ef);
    }

    // One half of a step: ask for the codes of the next row's neighbours, or compare those that were asked for.
    bool go_on() {
        if (count_) compare();
        else if (!expand()) return false;
        return true;
    }

    const Pool& answers() const { return allowed_ ? answers_ : pool_; }

private:
    float estimate(int32_t sum, const uint8_t* code) const {
        float factor, bias = 0;
        std::memcpy(&factor, code + graph_->stride - 4, 4);
        if (graph_->biased) std::memcpy(&bias, code + graph_->stride - 8, 4);
        return float(2 * sum - offset_) * scale_ * factor + bias;
    }

    void begin(int64_t ef) {
        pool_.clear(std::min(kEntries, ef));
        for (int64_t first = 0; first < graph_->hubs; first += kHubsAtATime) {
            const int64_t count = std::min(kHubsAtATime, graph_->hubs - first);
            const uint8_t* codes = graph_->hub_codes + first * graph_->stride;
            sums_->codes(codes, graph_->stride, nullptr, count, query_, totals_.data());
            for (int64_t i = 0; i < count; ++i)
                pool_.insert(key_of(estimate(totals_[size_t(i)], codes + i * graph_->stride),
                                    graph_->hub_rows[first + i]));
        }
        const size_t found = pool_.size;
        pool_.clear(ef);
        pool_.size = found;
        for (size_t i = 0; i < found; ++i) {
            const int32_t row = row_of(pool_.keys[i]);
            mark(row);
            if (allowed_ && allowed_[row]) answers_.insert(pool_.keys[i]);
            ask_for_links(row);
        }
        next_ = 0;
        count_ = 0;
    }

    bool mark(int32_t row) {  // whether it is new
        uint64_t& word = seen_[size_t(row) >> 6];
        const uint64_t bit = uint64_t(1) << (row & 63);
        const bool fresh = !(word & bit);
        word |= bit;
        return fresh;
    }

    void ask_for_links(int32_t row) const {
        const int32_t* links = graph_->links + row * graph_->degree;
        for (int64_t i = 0; i < graph_->degree; i += 16) __builtin_prefetch(links + i);
    }

    bool expand() {
        while (!count_) {
            while (next_ < pool_.size && pool_.keys[next_] & 1) ++next_;
            if (next_ == pool_.size) return false;
            const int32_t* links = graph_->links + row_of(pool_.keys[next_]) * graph_->degree;
            pool_.keys[next_] |= 1;
            for (int64_t i = 0; i < graph_->degree && links[i] >= 0; ++i) {
                met_[size_t(count_)] = links[i];
                count_ += mark(links[i]);
            }
        }
        for (int64_t i = 0; i < count_; ++i) {
            const uint8_t* code = graph_->codes + met_[size_t(i)] * graph_->stride;
            for (int64_t j = 0; j < graph_->stride; j += 64) __builtin_prefetch(code + j);
        }
        return true;
    }

    void compare() {
        sums_->codes(graph_->codes, graph_->stride, met_.data(), count_, query_, totals_.data());
        size_t first = next_;
        for (size_t i = 0; i < size_t(count_); ++i) {
            const int32_t row = met_[i];
            const uint64_t key = key_of(estimate(totals_[i], graph_->codes + row * graph_->stride), row);
            first = std::min(first, pool_.insert(key));
            if (allowed_ && allowed_[row]) answers_.insert(key);
        }
        count_ = 0;
        next_ = first;
        while (next_ < pool_.size && pool_.keys[next_] & 1) ++next_;
        if (next_ < pool_.size) ask_for_links(row_of(pool_.keys[next_]));
    }

    const GraphSums* sums_;
    const NestlingGraph* graph_;
    const uint8_t* allowed_;
    const int8_t* query_;
    int32_t offset_;
    float scale_;
    std::vector<uint64_t> seen_;
    std::vector<int32_t> met_, totals_;
    Pool pool_, answers_;
    size_t next_ = 0;
    int64_t count_ = 0;
};

// Memory that a thread uses again.
std::vector<Walker>& walkers() {
    thread_local std::vector<Walker> all(static_cast<size_t>(kTogether));
    return all;
}

// Walks from `first` to `last`, some at a time; `use` gets the number of each and what it found.
template <typename Use>
void walk_together(const GraphSums& sums, const NestlingGraph& graph, const NestlingWalks& walks, int64_t ef,
                   const uint8_t* allowed, int64_t kept, Use use) {
    std::vector<Walker>& all = walkers();
    for (int64_t first = 0; first < walks.count; first += kTogether) {
        const int64_t count = std::min(kTogether, walks.count - first);
        for (int64_t i = 0; i < count; ++i)
            all[size_t(i)].start(sums, graph, walks, first + i, ef, allowed, kept);
        for (bool going = true; going;) {
            going = false;
            for (int64_t i = 0; i < count; ++i) going |= all[size_t(i)].go_on();
        }
        for (int64_t i = 0; i < count; ++i) use(first + i, all[size_t(i)].answers());
    }
}

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

// Rows that a walk meets for every query, the most promising first: Int32[count, kept], -1 where fewer.
EXPORT int64_t nestling_graph_walk(int32_t level, const NestlingGraph* graph, const NestlingWalks* walks,
                                   int64_t ef, const uint8_t* allowed, int64_t kept, int32_t* found) {
    try {
        const auto write = [&](int64_t number, const Pool& pool) {
            for (int64_t i = 0; i < kept; ++i)
                found[number * kept + i] = size_t(i) < pool.size ? row_of(pool.keys[size_t(i)]) : -1;
        };
        walk_together(graph_sums_of(level), *graph, *walks, ef, allowed, kept, write);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

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
        walk_together(growth.sums, *graph, *walks, ef, nullptr, 0, choose);
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

// The k best of every query's candidates (-1 is none) by exact scores; of equal ones the lower row.
EXPORT int64_t nestling_rank(int32_t number, const NestlingVectors* vectors, const double* queries, int64_t count,
                             const int32_t* candidates, int64_t length, int64_t k, int64_t* indices,
                             double* scores) {
    try {
        const Level& level = level_of(number);
        std::vector<std::pair<double, int64_t>> found;  // the score with its sign changed
        for (int64_t query = 0; query < count; ++query) {
            const int32_t* rows = candidates + query * length;
            found.clear();
            for (int64_t i = 0; i < length && rows[i] >= 0; ++i) {
                if (i + kRankAhead < length && rows[i + kRankAhead] >= 0) fetch(*vectors, rows[i + kRankAhead]);
                found.emplace_back(-score_of(level, *vectors, rows[i], queries + query * vectors->dim), rows[i]);
            }
            const int64_t kept = std::min<int64_t>(k, int64_t(found.size()));
            std::partial_sort(found.begin(), found.begin() + kept, found.end());
            for (int64_t i = 0; i < k; ++i) {
                indices[query * k + i] = i < kept ? found[size_t(i)].second : -1;
                scores[query * k + i] =
                    i < kept ? -found[size_t(i)].first : std::numeric_limits<double>::quiet_NaN();
            }
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
