// Exact search at many prefixes at once, of rows that are held at one or more precisions.
//
// Rows are compared as levels, whole numbers of 8 bits: an entry is about centre + unit * level. Products of levels
// with queries of 8 bits are summed from prefix to prefix, and give bounds on the scores of all precisions. Exact
// scores are computed for rows whose upper bound reaches the k-th best exact score.
#include "search.h"

#include <algorithm>
#include <functional>
#include <new>
#include <vector>

using namespace nestling;

// ---- the fields and their order are those of nestling/kernels/prefixes.py ----

struct NestlingKind {
    const float* values;  // [rows, at least the last of the dims]
    int64_t stride;       // floats from row to row
    int64_t sharp;        // whether all rows have small doubts
};

struct NestlingHeld {
    int64_t rows, padded, sizes, kinds;  // `padded` is a multiple of 96; a kind is a precision
    const int64_t* dims;                 // of each size, increasing
    const uint8_t* levels;               // [rows, dim of the last size]
    uint8_t* packed;                     // levels in blocks of 16 rows: nestling_pack_held
    const NestlingKind* values;          // of each kind
    const double* inverse;               // [kinds, rows, sizes]: by which products become scores
    const float *lengths, *doubts;       // [kinds, sizes, padded]: see Limits; a row with doubts of -inf is left out
};

struct NestlingHeldQueries {
    int64_t count;
    const int8_t* codes;   // [count, dim]
    const double* exact;   // [count, dim]
    const float* factors;  // [count, sizes, 4]: step, upper and lower offset, length
    const int64_t* likely;  // [count, sizes, k] different rows that are likely to be among the best, or null
};

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kSetsTogether = 64;     // read the rows together; their shortlists stay in the second cache
constexpr size_t kMost = 4096, kPerNeighbour = 4;  // candidates of a shortlist
constexpr float kSlack = 4e-7f;           // more than what float32 rounds off

struct Bounded {
    float upper;
    int32_t row;
    bool operator<(const Bounded& other) const { return upper > other.upper; }
};

inline float above(double x) { return float(x + kSlack * std::fabs(x)); }
inline float below(double x) { return float(x - kSlack * std::fabs(x)); }

// The parts between two sizes, each filled up to whole quads of entries.
class Quads {
public:
    explicit Quads(const NestlingHeld& held) {
        int64_t dim = 0;
        for (int64_t i = 0; i < held.sizes; ++i) {
            for (; dim < held.dims[i]; dim += parts_.back().count)
                parts_.push_back({dim, std::min<int64_t>(4, held.dims[i] - dim)});
            edges_.push_back(int64_t(parts_.size()));
        }
    }
    int64_t count() const { return int64_t(parts_.size()); }
    const int64_t* edges() const { return edges_.data(); }
    // Entries go to every `step` bytes, four at a time.
    template <typename T> void spread(const T* entries, int64_t step, T* out) const {
        for (const Part& part : parts_) {
            T four[4] = {};
            std::memcpy(four, entries + part.dim, part.count == 4 ? 4 : size_t(part.count));
            std::memcpy(out, four, 4);
            out += step;
        }
    }

private:
    struct Part {
        int64_t dim, count;
    };
    std::vector<Part> parts_;
    std::vector<int64_t> edges_;
};

// Rows that may be among the best of one query at one size and precision. The k-th best lower bound is a
// threshold for upper bounds.
class Shortlist {
public:
    void clear() { rows_.clear(), lower_.clear(), is_full_ = false; }

    void offer(const Bounded& one, float lower, size_t k, float& threshold) {
        rows_.push_back(one);
        raise(lower, k, threshold);
        if (rows_.size() < limit_) return;
        drop(threshold);
        if (rows_.size() * 2 > limit_) limit_ *= 2;
        if (rows_.size() < kMost + kPerNeighbour * k) return;
        is_full_ = true;
        threshold = kHighest;
    }

    // Lower bounds are a heap with the worst on top.
    void raise(float lower, size_t k, float& threshold) {
        if (lower_.size() == k) {
            if (!(lower > lower_.front())) return;
            std::pop_heap(lower_.begin(), lower_.end(), std::greater<float>());
            lower_.back() = lower;
        } else {
            lower_.push_back(lower);
        }
        std::push_heap(lower_.begin(), lower_.end(), std::greater<float>());
        if (lower_.size() == k) threshold = std::max(threshold, lower_.front());
    }

    std::vector<Bounded>& sorted(float threshold) {
        drop(threshold);
        std::sort(rows_.begin(), rows_.end());
        return rows_;
    }

    bool is_full() const { return is_full_; }

private:
    void drop(float threshold) {
        const auto is_low = [&](const Bounded& one) { return one.upper < threshold; };
        rows_.erase(std::remove_if(rows_.begin(), rows_.end(), is_low), rows_.end());
    }

    std::vector<Bounded> rows_;
    std::vector<float> lower_;
    size_t limit_ = 256;
    bool is_full_ = false;
};

class HeldSearch {
public:
    HeldSearch(const Level& level, const NestlingHeld& held, const NestlingHeldQueries& queries, int64_t k)
        : level_(level), held_(held), queries_(queries), k_(size_t(k)), settings_(held.kinds * held.sizes),
          dim_(held.dims[held.sizes - 1]), quads_(held), tile_bytes_(block_bytes(quads_.count())) {
        for (int64_t kind = 0; kind < held.kinds; ++kind) sharp_.push_back(held.values[kind].sharp);
        for (int64_t setting = 0; setting < settings_; ++setting) {
            const float* doubts = held.doubts + setting * held.padded;
            most_doubts_.push_back(sharp_[size_t(setting / held.sizes)] ? *std::max_element(doubts, doubts + held.padded) : 0);
        }
        const int64_t places = std::min(kSetsTogether * kSet, (queries.count + kSet - 1) / kSet * kSet) * settings_;
        limits_.resize(size_t(places));
        lower_.resize(size_t(places));
        lists_.resize(size_t(places));
        hits_.resize(size_t((kSet * settings_ * kWide + 1) * kLanes));
    }

    // For each query and setting the best rows, -1 where bounds left too many.
    void look(int64_t* rows, double* scores) {
        for (start_ = 0; start_ < queries_.count; start_ += kSetsTogether * kSet) {
            count_ = std::min(kSetsTogether * kSet, queries_.count - start_);
            arrange();
            begin();
            scan();
            for (int64_t place = 0; place < count_ * settings_; ++place) {
                Best best{int64_t(k_)};
                verify(place, best);
                const int64_t at = (start_ * settings_ + place) * int64_t(k_);
                best.write(rows + at, scores + at);
            }
        }
    }

private:
    // Four queries of a set side by side.
    void arrange() {
        const int64_t sets = (count_ + kSet - 1) / kSet, bytes = quads_.count() * kSet * 4;
        sets_.assign(size_t(sets * bytes), 0);
        for (int64_t i = 0; i < count_; ++i)
            quads_.spread(queries_.codes + (start_ + i) * dim_, kSet * 4,
                          sets_.data() + i / kSet * bytes + i % kSet * 4);
    }

    void begin() {
        std::fill(limits_.begin(), limits_.end(), Limits{0, kLowest, 0, 0});
        for (int64_t place = 0; place < count_ * settings_; ++place) {
            const int64_t query = start_ + place / settings_, setting = place % settings_;
            const int64_t of_size = query * held_.sizes + setting % held_.sizes;
            const float* factors = queries_.factors + of_size * 4;
            Limits& limits = limits_[size_t(place)];
            limits = {factors[0], factors[1] + factors[3] * most_doubts_[size_t(setting)], factors[3], -3e38f};
            lower_[size_t(place)] = factors[2];
            lists_[size_t(place)].clear();
            if (!queries_.likely) continue;
            const int64_t* rows = queries_.likely + of_size * int64_t(k_);
            double worst = std::numeric_limits<double>::infinity();
            for (size_t i = 0; i < k_; ++i) worst = rows[i] < 0 ? -1e300 : std::min(worst, score(query, setting, rows[i]));
            if (worst > -1e37) limits.threshold = below(worst);
        }
    }

    // The blocks that a product takes stay in the first cache for all sets.
    void scan() {
        for (int64_t block = 0; block < held_.padded / kLanes; block += kWide)
            for (int64_t set = 0; set * kSet < count_; ++set) compare(set, block);
    }

    void compare(int64_t set, int64_t block) {
        const int64_t row = block * kLanes, start = set * kSet * settings_;
        const PrefixTile tile = {held_.packed + block * tile_bytes_, quads_.edges(), sharp_.data(), held_.sizes,
                                 held_.kinds, quads_.count(), held_.lengths + row, held_.doubts + row, held_.padded};
        const int64_t count = level_.prefixes(tile, sets_.data() + set * quads_.count() * kSet * 4,
                                              limits_.data() + start, hits_.data());
        for (int64_t i = 0; i < count; ++i) follow(hits_[size_t(i)], start, row);
    }

    void follow(const Hit& hit, int64_t start, int64_t first) {
        const size_t place = size_t(start + hit.limits);
        const int64_t row = first + hit.row, at = hit.limits % settings_ * held_.padded + row;
        Limits& limits = limits_[place];
        if (held_.doubts[at] < 0) return;
        const double product = double(limits.step) * hit.sum, doubt = double(limits.length) * held_.doubts[at];
        const double inverse = 1 / double(held_.lengths[at]);
        const float upper = above((product + limits.offset + doubt) * inverse);
        if (upper < limits.threshold) return;
        lists_[place].offer({upper, int32_t(row)}, below((product + lower_[place] - doubt) * inverse), k_,
                            limits.threshold);
    }

    double score(int64_t query, int64_t setting, int64_t row) const {
        const int64_t kind = setting / held_.sizes, size = setting % held_.sizes;
        const float* values = held_.values[kind].values + row * held_.values[kind].stride;
        return level_.dot[kFloat32](values, queries_.exact + query * dim_, held_.dims[size]) *
               held_.inverse[(kind * held_.rows + row) * held_.sizes + size];
    }

    // Exact scores of candidates, the highest bounds first.
    void verify(int64_t place, Best& best) {
        Shortlist& list = lists_[size_t(place)];
        if (list.is_full()) return;
        const int64_t query = start_ + place / settings_, setting = place % settings_;
        const std::vector<Bounded>& rows = list.sorted(limits_[size_t(place)].threshold);
        for (size_t i = 0; i < rows.size(); ++i) {
            if (best.full() && rows[i].upper < below(best.worst())) break;
            if (i + kRowsAhead < rows.size()) fetch(setting, rows[i + kRowsAhead].row);
            best.offer({score(query, setting, rows[i].row), rows[i].row});
        }
    }

    void fetch(int64_t setting, int64_t row) const {
        const NestlingKind& kind = held_.values[setting / held_.sizes];
        const float* values = kind.values + row * kind.stride;
        for (int64_t i = 0; i < held_.dims[setting % held_.sizes]; i += 16) __builtin_prefetch(values + i);
    }

    const Level& level_;
    const NestlingHeld& held_;
    const NestlingHeldQueries& queries_;
    size_t k_;
    int64_t settings_, dim_, start_ = 0, count_ = 0;
    Quads quads_;
    int64_t tile_bytes_;
    std::vector<int64_t> sharp_;      // by kind
    std::vector<float> most_doubts_;  // by setting
    std::vector<int8_t> sets_;
    std::vector<Limits> limits_;  // [query][setting], as all of these
    std::vector<float> lower_;
    std::vector<Shortlist> lists_;
    std::vector<Hit> hits_;
};

}  // namespace

// Whether this level has the products that the search needs.
EXPORT int64_t nestling_has_prefixes(int32_t number) { return level_of(number).prefixes != nullptr; }

// The k best rows of every query for every kind and size; -1 where bounds left too many rows.
EXPORT int64_t nestling_search_held(int32_t number, const NestlingHeld* held, const NestlingHeldQueries* queries,
                                    int64_t k, int64_t* rows, double* scores) {
    try {
        HeldSearch(level_of(number), *held, *queries, k).look(rows, scores);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Bytes of the packed levels of all rows.
EXPORT int64_t nestling_packed_held(const NestlingHeld* held) {
    return held->padded / kLanes * block_bytes(Quads(*held).count());
}

// Packs the levels of some blocks of 16 rows; rows behind the last are any.
EXPORT int64_t nestling_pack_held(const NestlingHeld* held, int64_t first, int64_t last) {
    try {
        const Quads quads(*held);
        const int64_t bytes = block_bytes(quads.count()), dim = held->dims[held->sizes - 1];
        for (int64_t i = first * kLanes; i < last * kLanes; ++i)
            quads.spread(held->levels + std::min(i, held->rows - 1) * dim, 64,
                         held->packed + i / kLanes * bytes + i % kLanes * 4);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Of the rows from `first` to `last`: squared lengths of their values and of what these differ from the levels,
// times a scale, both [sizes, rows]; and the largest sums of (2 level - most) squared, [sizes].
EXPORT int64_t nestling_measure_held(int32_t number, const NestlingHeld* held, int64_t kind, const double* centre,
                                     const double* unit, const double* scale, int64_t most, int64_t first,
                                     int64_t last, double* squares, double* residuals, int64_t* reach) {
    try {
        const Level& level = level_of(number);
        const int64_t dim = held->dims[held->sizes - 1];
        const std::vector<double> zeros(size_t(dim), 0.0);
        std::vector<double> near(size_t(dim), 0.0);
        for (int64_t row = first; row < last; ++row) {
            const float* values = held->values[kind].values + row * held->values[kind].stride;
            const uint8_t* levels = held->levels + row * dim;
            const double factor = scale ? scale[row] : 1;
            for (int64_t i = 0; i < dim; ++i) near[size_t(i)] = factor * (centre[i] + unit[i] * levels[i]);
            double square = 0, residual = 0;
            int64_t start = 0, spread = 0;
            for (int64_t size = 0; size < held->sizes; start = held->dims[size++]) {
                const int64_t count = held->dims[size] - start;
                square += level.distance[kFloat32](values + start, zeros.data(), count);
                residual += level.distance[kFloat32](values + start, near.data() + start, count);
                int32_t sum = 0;
                for (int64_t i = start; i < start + count; ++i) {
                    const int32_t apart = 2 * int32_t(levels[i]) - int32_t(most);
                    sum += apart * apart;
                }
                spread += sum;
                squares[size * held->rows + row] = square;
                residuals[size * held->rows + row] = residual;
                reach[size] = std::max(reach[size], spread);
            }
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
