// The C interface, and the search that goes from coarse codes over fine ones to exact scores.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

using namespace nestling;

namespace {

enum LevelNumber : int32_t { kPlainNumber = 0, kAvx2Number = 1, kAvx512Number = 2 };
constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kBlocksAtATime = 512;  // of 16 rows: half a megabyte of coarse codes of 256 dims
constexpr int64_t kFirstBlocks = 64;

const Level& level_of(int32_t number) {
#if defined(__x86_64__)
    if (number == kAvx2Number) return kAvx2;
    if (number == kAvx512Number) return kAvx512;
#endif
    (void)number;
    return kPlain;
}

}  // namespace

// ---- what Python fills in; the fields and their order are those of nestling/kernels/native.py ----

struct NestlingVectors {
    const uint8_t* data;
    int64_t stride, dim;  // bytes from row to row; entries that count
    const double* scale;  // per row, or null: inner products are multiplied by it
    int32_t type, distance;
};

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
    const float* factors;    // [count, 2, 3]: alpha, beta, gamma of the coarse and of the fine bound
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

double score_of(const Level& level, const NestlingVectors& vectors, int64_t row, const double* query) {
    const uint8_t* data = vectors.data + row * vectors.stride;
    if (vectors.distance) return -level.distance[vectors.type](data, query, vectors.dim);
    const double product = level.dot[vectors.type](data, query, vectors.dim);
    return vectors.scale ? product * vectors.scale[row] : product;
}

void fetch(const NestlingVectors& vectors, int64_t row) {
    const int64_t bytes = vectors.dim << (vectors.type == kFloat32 ? 2 : vectors.type == kFloat16 ? 1 : 0);
    const uint8_t* data = vectors.data + row * vectors.stride;
    for (int64_t i = 0; i < std::min<int64_t>(bytes, 4096); i += 64) __builtin_prefetch(data + i);
}

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

// One query on its way through the codes.
class Pursuit {
public:
    Pursuit(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
            const NestlingQueries& queries, int64_t number, int64_t k)
        : level_(level), vectors_(vectors), codes_(codes), best_(k) {
        query_ = queries.codes + number * codes.lines * 16;
        sum_ = queries.sums[number];
        factors_ = queries.factors + number * 6;
        exact_ = queries.exact + number * vectors.dim;
        map_ = queries.bounds + number * 3;
        // A whole register is stored behind the last survivor.
        const size_t most = kBlocksAtATime * kLanes + kLanes;
        rows_.resize(most), sums_.resize(most), bounds_.resize(most);
        found_ = {rows_.data(), sums_.data(), bounds_.data(), 0, kLowest};
    }

    Probe probe() const { return {query_, 3 * sum_, factors_[0], factors_[1], factors_[2], threshold_}; }
    Found& found() { return found_; }

    // Go on with what survived the coarse codes of some rows.
    void follow() {
        candidates_.clear();
        for (int64_t i = 0; i < found_.count; ++i) {
            const int64_t ahead = std::min(i + 12, found_.count - 1);
            __builtin_prefetch(codes_.fine + rows_[ahead] * codes_.lines * 4);
            if (rows_[i] >= codes_.rows) break;  // what fills the last block
            if (!codes_.allowed || codes_.allowed[rows_[i]]) refine(rows_[i], sums_[i]);
        }
        std::sort(candidates_.begin(), candidates_.end());
        for (size_t i = 0; i < candidates_.size(); ++i) {
            if (candidates_[i].bound < threshold_) {
                skip(candidates_[i].bound);
                break;
            }
            if (i + 3 < candidates_.size()) fetch(vectors_, candidates_[i + 3].row);
            verify(candidates_[i].row);
        }
        found_.count = 0;
    }

    void answer(const NestlingAnswers& answers, int64_t number, int64_t k) {
        best_.write(answers.indices + number * k, answers.scores + number * k);
        answers.refined[number] = refined_;
        answers.verified[number] = verified_;
        answers.skipped[number] = std::max(found_.skipped, skipped_);
    }

private:
    void refine(int32_t row, int32_t coarse) {
        ++refined_;
        const int32_t fine = level_.fine(codes_.fine + row * codes_.lines * 4, codes_.lines * 4, query_);
        const int32_t t = 2 * (4 * coarse + fine) - 15 * sum_;
        float bound = codes_.fine_scale[row] * (factors_[3] * float(t) + factors_[4]);
        bound += factors_[5] * codes_.fine_radius[row];
        if (codes_.bias) bound += codes_.bias[row];
        if (bound < threshold_) skip(bound);
        // What is no number bounds nothing, so it goes first.
        else candidates_.push_back({std::isnan(bound) ? -kLowest : bound, row});
    }

    void verify(int32_t row) {
        ++verified_;
        best_.offer({score_of(level_, vectors_, row, exact_), row});
        if (!best_.full()) return;
        const double own = best_.worst() * map_[0];
        const double least = own + map_[1] - map_[2] - 4e-7 * (std::fabs(own) + std::fabs(map_[1]));
        threshold_ = std::fabs(least) < 1e38 ? float(least) : kLowest;
    }

    void skip(float bound) { skipped_ = std::max(skipped_, bound); }

    const Level& level_;
    const NestlingVectors& vectors_;
    const NestlingCodes& codes_;
    Best best_;
    const int8_t* query_;
    int32_t sum_;
    const float* factors_;
    const double *exact_, *map_;
    std::vector<int32_t> rows_, sums_;
    std::vector<float> bounds_;
    std::vector<Candidate> candidates_;
    Found found_;
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
        const Level& level = level_of(number);
        const Packed packed = {codes->coarse, codes->lines, codes->coarse_scale, codes->coarse_radius,
                               codes->bias};
        const int64_t blocks = (codes->rows + kLanes - 1) / kLanes;
        for (int64_t start = 0; start < queries->count; start += 128) {
            const int64_t count = std::min<int64_t>(128, queries->count - start);
            std::vector<Pursuit> pursuits;
            pursuits.reserve(size_t(count));
            for (int64_t i = 0; i < count; ++i)
                pursuits.emplace_back(level, *vectors, *codes, *queries, start + i, k);
            int64_t step = kFirstBlocks;
            for (int64_t first = 0; first < blocks; first += step, step = kBlocksAtATime) {
                const int64_t last = std::min(first + step, blocks);
                for (int64_t i = 0; i < count; i += kMostTogether) {
                    const int64_t together = std::min<int64_t>(kMostTogether, count - i);
                    Probe probes[kMostTogether];
                    Found found[kMostTogether];
                    for (int64_t j = 0; j < together; ++j) {
                        probes[j] = pursuits[i + j].probe();
                        found[j] = pursuits[i + j].found();
                    }
                    scan_together(level, packed, 1, first, last, probes, found, together);
                    for (int64_t j = 0; j < together; ++j) {
                        pursuits[i + j].found() = found[j];
                        pursuits[i + j].follow();
                    }
                }
            }
            for (int64_t i = 0; i < count; ++i) pursuits[i].answer(*answers, start + i, k);
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
            probes.push_back({codes + i * width, ((1 << bits) - 1) * sums[i], f[0], f[1], f[2], f[3]});
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
