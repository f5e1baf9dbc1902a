// Exact search at many prefixes at once, of rows that are held at one or more precisions.
//
// Products of levels (held_rows.h) with queries of 8 bits are summed from prefix to prefix, and give bounds on the
// scores of all precisions. Exact scores are computed for rows whose upper bound reaches the k-th best exact score.
#include "held_rows.h"

#include <functional>
#include <new>

using namespace nestling;

// ---- the fields and their order are those of nestling/kernels/prefixes.py ----

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

// The parts of queries and rows that products take at a time: four entries, or those of them between two sizes.
class Quads {
public:
    explicit Quads(const NestlingHeld& held) {
        int64_t dim = 0;
        for (int64_t i = 0; i < held.sizes; ++i) {
            for (; dim < held.dims[i]; dim += parts_.back().count)
                parts_.push_back({dim, std::min(4 - dim % 4, held.dims[i] - dim)});
            edges_.push_back(int64_t(parts_.size()));
        }
        is_even_ = 4 * count() < dim + 4;
    }
    int64_t count() const { return int64_t(parts_.size()); }
    const int64_t* edges() const { return edges_.data(); }
    bool is_even() const { return is_even_; }  // whether no size divides four entries
    int64_t line(int64_t quad) const { return parts_[size_t(quad)].dim / 4; }
    // Entries of a query go to every `step` bytes, in their places among four; the others of these are zero.
    void spread(const int8_t* entries, int64_t step, int8_t* out) const {
        for (const Part& part : parts_) {
            std::memset(out, 0, 4);
            std::memcpy(out + part.dim % 4, entries + part.dim, size_t(part.count));
            out += step;
        }
    }

private:
    struct Part {
        int64_t dim, count;
    };
    std::vector<Part> parts_;
    std::vector<int64_t> edges_;
    bool is_even_;
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

// Levels of kWide blocks of 16 rows, and per lane the extremes of what bounds need of their rows.
class Tile {
public:
    Tile(const Level& level, const NestlingHeld& held)
        : level_(level), held_(held), quads_(held), settings_(held.kinds * held.sizes),
          bytes_(block_bytes(quads_.count())), levels_(size_t(kWide * bytes_ + 64)), lines_(size_t(bytes_)),
          extremes_(size_t(3 * settings_ * kLanes)) {}

    void fill(int64_t first) {
        first_ = first;
        for (int64_t block = 0; block < kWide; ++block) gather(first + block * kLanes, levels() + block * bytes_);
        level_.level_codes(*held_.levels, kWide * bytes_, levels());
        for (int64_t setting = 0; setting < settings_; ++setting) summarise(setting);
    }

    PrefixTile seen() {
        const int64_t apart = settings_ * kLanes;
        const float* extremes = extremes_.data();
        return {levels(), quads_.edges(), held_.sizes, held_.kinds, quads_.count(), held_.lengths + first_,
                held_.doubts ? held_.doubts + first_ : nullptr, held_.padded,
                {extremes, extremes + apart, held_.doubts ? extremes + 2 * apart : nullptr}};
    }

    const Quads& quads() const { return quads_; }

private:
    uint8_t* levels() {  // a line does not cross two lines of the cache
        return levels_.data() + (64 - reinterpret_cast<uintptr_t>(levels_.data()) % 64) % 64;
    }

    // Four entries of 16 rows side by side; rows behind the last are any.
    void gather(int64_t first, uint8_t* block) {
        const int64_t row = std::min(first, held_.rows - 1);
        const PlaneRows rows = {{held_.codes + row * held_.stride}, 1, held_.stride, held_.dims[held_.sizes - 1],
                                std::min<int64_t>(kLanes, held_.rows - row)};
        if (quads_.is_even()) return level_.gather(rows, block);
        level_.gather(rows, lines_.data());
        for (int64_t quad = 0; quad < quads_.count(); ++quad)
            std::memcpy(block + 64 * quad, lines_.data() + 64 * quads_.line(quad), 64);
    }

    void summarise(int64_t setting) {
        const int64_t apart = settings_ * kLanes, at = setting * held_.padded + first_;
        float *shortest = extremes_.data() + setting * kLanes, *longest = shortest + apart, *doubts = longest + apart;
        const float *lengths = held_.lengths + at, *of_rows = held_.doubts ? held_.doubts + at : nullptr;
        for (int64_t i = 0; i < kLanes; ++i) {
            shortest[i] = longest[i] = lengths[i];
            doubts[i] = of_rows ? of_rows[i] : 0;
        }
        for (int64_t row = kLanes; row < kWide * kLanes; row += kLanes)
            for (int64_t i = 0; i < kLanes; ++i) {
                const float length = lengths[row + i];
                shortest[i] = length < shortest[i] ? length : shortest[i];
                longest[i] = length > longest[i] ? length : longest[i];
                if (of_rows) doubts[i] = of_rows[row + i] > doubts[i] ? of_rows[row + i] : doubts[i];
            }
    }

    const Level& level_;
    const NestlingHeld& held_;
    Quads quads_;
    int64_t settings_, bytes_, first_ = 0;
    std::vector<uint8_t> levels_, lines_;
    std::vector<float> extremes_;
};

class HeldSearch {
public:
    HeldSearch(const Level& level, const NestlingHeld& held, const NestlingHeldQueries& queries, int64_t k)
        : level_(level), held_(held), queries_(queries), k_(size_t(k)), settings_(held.kinds * held.sizes),
          dim_(held.dims[held.sizes - 1]), values_(level, held), tile_(level, held) {
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
        const int64_t sets = (count_ + kSet - 1) / kSet, bytes = tile_.quads().count() * kSet * 4;
        sets_.assign(size_t(sets * bytes), 0);
        for (int64_t i = 0; i < count_; ++i)
            tile_.quads().spread(queries_.codes + (start_ + i) * dim_, kSet * 4,
                                 sets_.data() + i / kSet * bytes + i % kSet * 4);
    }

    void begin() {
        std::fill(limits_.begin(), limits_.end(), Limits{0, kLowest, 0, 0});
        for (int64_t place = 0; place < count_ * settings_; ++place) {
            const int64_t query = start_ + place / settings_, of_size = query * held_.sizes + place % held_.sizes;
            const float* factors = queries_.factors + of_size * 4;
            Limits& limits = limits_[size_t(place)];
            limits = {factors[0], factors[1], factors[3], -3e38f};
            lower_[size_t(place)] = factors[2];
            lists_[size_t(place)].clear();
            if (!queries_.likely) continue;
            const int64_t* rows = queries_.likely + of_size * int64_t(k_);
            double worst = std::numeric_limits<double>::infinity();
            for (size_t i = 0; i < k_; ++i) worst = rows[i] < 0 ? -1e300 : std::min(worst, score(place, rows[i]));
            if (worst > -1e37) limits.threshold = below(worst);
        }
    }

    // The levels of a tile stay in the first cache for all sets.
    void scan() {
        const int64_t bytes = tile_.quads().count() * kSet * 4;
        for (int64_t row = 0; row < held_.padded; row += kWide * kLanes) {
            tile_.fill(row);
            const PrefixTile tile = tile_.seen();
            for (int64_t set = 0; set * kSet < count_; ++set) {
                const int64_t start = set * kSet * settings_;
                const int64_t count =
                    level_.prefixes(tile, sets_.data() + set * bytes, limits_.data() + start, hits_.data());
                for (int64_t i = 0; i < count; ++i) follow(hits_[size_t(i)], start, row);
            }
        }
    }

    void follow(const Hit& hit, int64_t start, int64_t first) {
        const size_t place = size_t(start + hit.limits);
        const int64_t row = first + hit.row, at = hit.limits % settings_ * held_.padded + row;
        Limits& limits = limits_[place];
        if (held_.lengths[at] >= kLeftOut) return;
        const double product = double(limits.step) * hit.sum, inverse = 1 / double(held_.lengths[at]);
        const double doubt = held_.doubts ? double(limits.length) * held_.doubts[at] : 0;
        const float upper = above((product + limits.offset + doubt) * inverse);
        if (upper < limits.threshold) return;
        lists_[place].offer({upper, int32_t(row)}, below((product + lower_[place] - doubt) * inverse), k_,
                            limits.threshold);
    }

    double score(int64_t place, int64_t row) {
        const int64_t query = start_ + place / settings_, setting = place % settings_;
        return values_.score(setting / held_.sizes, setting % held_.sizes, row, queries_.exact + query * dim_);
    }

    // Exact scores of candidates, the highest bounds first.
    void verify(int64_t place, Best& best) {
        Shortlist& list = lists_[size_t(place)];
        if (list.is_full()) return;
        const int64_t setting = place % settings_;
        const std::vector<Bounded>& rows = list.sorted(limits_[size_t(place)].threshold);
        for (size_t i = 0; i < rows.size(); ++i) {
            if (best.full() && rows[i].upper < below(best.worst())) break;
            if (i + kRowsAhead < rows.size())
                values_.fetch(setting / held_.sizes, setting % held_.sizes, rows[i + kRowsAhead].row);
            best.offer({score(place, rows[i].row), rows[i].row});
        }
    }

    const Level& level_;
    const NestlingHeld& held_;
    const NestlingHeldQueries& queries_;
    size_t k_;
    int64_t settings_, dim_, start_ = 0, count_ = 0;
    Values values_;
    Tile tile_;
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
