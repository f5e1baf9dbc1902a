// Beam search over a graph of rows with 2-bit codes, in half steps, so that several searches can take turns.
#pragma once
#include "rows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingGraph {
    int64_t rows, stride, degree, hubs;
    const uint8_t* codes;      // [rows, stride]
    int32_t* links;            // [rows, degree], -1 where there are fewer
    const int32_t* hub_rows;   // [hubs]: where searches start
    const uint8_t* hub_codes;  // [hubs, stride]
    int32_t biased;            // whether a row's line ends with its bias and factor, or its factor alone
};

namespace nestling {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kTogether = 4;  // searches take turns: one computes while others wait for memory
constexpr int64_t kEntries = 2;
constexpr int64_t kHubsAtATime = 64;

// Estimates order rows as whole numbers do: the better the smaller. Of equal ones the lower row is better.
inline uint64_t key_of(float estimate, int32_t row) {
    const float negated = 0.0f - estimate;  // never minus zero
    uint32_t bits;
    std::memcpy(&bits, &negated, 4);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return uint64_t(bits) << 32 | uint64_t(uint32_t(row)) << 1;
}

inline int32_t row_of(uint64_t key) { return int32_t(uint32_t(key) >> 1); }

inline float estimate_of(uint64_t key) {
    uint32_t bits = uint32_t(key >> 32);
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    float negated;
    std::memcpy(&negated, &bits, 4);
    return -negated;
}

// The best keys so far, in order. The lowest bit says that the row's links were followed.
struct Pool {
    std::vector<uint64_t> keys;
    size_t size = 0, room = 0;

    void clear(int64_t most) {
        size = 0;
        room = size_t(most);
        if (keys.size() < room) keys.resize(room);
    }
    // What is estimated lower finds no room.
    float least() const {
        return size && size == room ? estimate_of(keys[size - 1]) : -std::numeric_limits<float>::infinity();
    }
    // Where the key went, or `room`.
    size_t insert(uint64_t key) {
        if (size == room && key >= keys[size - 1]) return room;
        size_t at = 0;
        for (size_t left = size; left;) {  // without branches that would be guessed wrong half of the time
            const size_t half = left / 2;
            const bool after = keys[at + half] < key;
            at = after ? at + half + 1 : at;
            left = after ? left - half - 1 : half;
        }
        size = std::min(size + 1, room);
        std::memmove(&keys[at] + 1, &keys[at], (size - 1 - at) * sizeof(uint64_t));
        keys[at] = key;
        return at;
    }
};

class BeamSearch {
public:
    // `kept`: how many allowed rows are remembered beside those that lead on; without a mask they are the same.
    void start(const Level& level, const NestlingGraph& graph, const EncodedQuery& encoded, int64_t ef,
               const uint8_t* allowed, int64_t kept) {
        level_ = &level;
        graph_ = &graph;
        coded_ = {graph.codes, graph.stride, graph.biased};
        query_ = encoded;
        allowed_ = allowed;
        seen_.assign(size_t(graph.rows + 63) / 64, 0);
        const size_t most = size_t(std::max(graph.degree, kHubsAtATime)) + 4;
        if (met_.size() < most) met_.resize(most), values_.resize(most), places_.resize(most);
        answers_.clear(allowed ? kept : 0);
        begin(ef);
    }

    // One half of a step: ask for the codes of the next row's neighbours, or compare those that were asked for.
    bool step() {
        if (count_) compare();
        else if (!expand()) return false;
        return true;
    }

    const Pool& answers() const { return allowed_ ? answers_ : pool_; }

private:
    void begin(int64_t ef) {
        pool_.clear(std::min(kEntries, ef));
        for (int64_t first = 0; first < graph_->hubs; first += kHubsAtATime) {
            const CodedRows hubs = {graph_->hub_codes + first * graph_->stride, graph_->stride, graph_->biased};
            const int64_t count = std::min(kHubsAtATime, graph_->hubs - first);
            const int64_t near = level_->estimates(hubs, query_, nullptr, count, pool_.least(), out());
            for (size_t i = 0; i < size_t(near); ++i)
                pool_.insert(key_of(values_[i], graph_->hub_rows[first + places_[i]]));
        }
        const size_t found = pool_.size;
        pool_.clear(ef);
        pool_.size = found;
        for (size_t i = 0; i < found; ++i) {
            const int32_t row = row_of(pool_.keys[i]);
            seen_[size_t(row) >> 6] |= uint64_t(1) << (row & 63);
            if (allowed_ && allowed_[row]) answers_.insert(pool_.keys[i]);
            ask_for_links(row);
        }
        next_ = 0;
        count_ = 0;
    }

    void ask_for_links(int32_t row) const {
        const int32_t* links = graph_->links + row * graph_->degree;
        for (int64_t i = 0; i < graph_->degree; i += 16) __builtin_prefetch(links + i);
    }

    bool expand() {
        const int64_t degree = graph_->degree, stride = graph_->stride;
        uint64_t* seen = seen_.data();
        int32_t* met = met_.data();
        int64_t count = 0;
        while (!count) {
            while (next_ < pool_.size && pool_.keys[next_] & 1) ++next_;
            if (next_ == pool_.size) return false;
            const int32_t* links = graph_->links + row_of(pool_.keys[next_]) * degree;
            pool_.keys[next_] |= 1;
            for (int64_t i = 0; i < degree && links[i] >= 0; ++i) {
                const uint32_t row = uint32_t(links[i]);
                const uint64_t word = seen[row >> 6];
                met[count] = int32_t(row);
                count += !(word >> (row & 63) & 1);
                seen[row >> 6] = word | uint64_t(1) << (row & 63);
            }
        }
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t* code = coded_.codes + met[i] * stride;
            for (int64_t j = 0; j < stride; j += 64) __builtin_prefetch(code + j);
        }
        count_ = count;
        return true;
    }

    void compare() {
        // What leads nowhere may still be an answer: with a mask all estimates are looked at.
        const float least = allowed_ ? -std::numeric_limits<float>::infinity() : pool_.least();
        const int64_t near = level_->estimates(coded_, query_, met_.data(), count_, least, out());
        size_t first = next_;
        for (size_t i = 0; i < size_t(near); ++i) {
            const int32_t row = met_[size_t(places_[i])];
            const uint64_t key = key_of(values_[i], row);
            first = std::min(first, pool_.insert(key));
            if (allowed_ && allowed_[row]) answers_.insert(key);
        }
        count_ = 0;
        next_ = first;
        while (next_ < pool_.size && pool_.keys[next_] & 1) ++next_;
        if (next_ < pool_.size) ask_for_links(row_of(pool_.keys[next_]));
    }

    Estimates out() { return {values_.data(), places_.data()}; }

    const Level* level_;
    const NestlingGraph* graph_;
    const uint8_t* allowed_;
    CodedRows coded_;
    EncodedQuery query_;
    std::vector<uint64_t> seen_;
    std::vector<int32_t> met_, places_;
    std::vector<float> values_;
    Pool pool_, answers_;
    size_t next_ = 0;
    int64_t count_ = 0;
};

// Memory that a thread uses again.
inline std::vector<BeamSearch>& beam_searches() {
    thread_local std::vector<BeamSearch> all(static_cast<size_t>(kTogether));
    return all;
}

// Searches for several queries at a time: `query_of` gives each, `use` takes its candidates.
template <typename QueryOf, typename Use>
void search_together(const Level& level, const NestlingGraph& graph, int64_t queries, int64_t ef,
                   const uint8_t* allowed, int64_t kept, QueryOf query_of, Use use) {
    std::vector<BeamSearch>& all = beam_searches();
    for (int64_t first = 0; first < queries; first += kTogether) {
        const int64_t count = std::min(kTogether, queries - first);
        for (int64_t i = 0; i < count; ++i)
            all[size_t(i)].start(level, graph, query_of(first + i), ef, allowed, kept);
        for (bool going = true; going;) {
            going = false;
            for (int64_t i = 0; i < count; ++i) going |= all[size_t(i)].step();
        }
        for (int64_t i = 0; i < count; ++i) use(first + i, all[size_t(i)].answers());
    }
}

}  // namespace nestling
