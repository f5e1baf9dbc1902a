// What the ways of searching share: what Python fills in, and the best rows of a query so far.
#pragma once
#include "rows.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

// ---- the fields and their order are those of nestling/kernels/scans/native.py ----

struct NestlingCodes {
    int64_t rows, lines;
    const uint8_t *coarse, *fine;
    const float *coarse_scale, *coarse_radius, *fine_scale, *fine_radius, *bias;
    const uint8_t* allowed;  // per row, or null
    int64_t first, last;     // blocks of 16 rows to look in
};

struct NestlingQueries {
    int64_t count;
    const int8_t* codes;     // [count, lines * 16]
    const int32_t* sums;     // of the codes
    const float* likely;     // [count, 2, 3]: alpha, beta, gamma of a bound by coarse and by fine codes
    const float* sure;       // the same of bounds that always hold, or null
    const double* exact;     // [count, dim]
    const double* bounds;    // [count, 3]: a score s meets bounds as s * [0] + [1], to within [2]
};

struct NestlingAnswers {
    int64_t* indices;  // [count, k], best first, -1 where there are fewer
    double* scores;
    int64_t *refined, *verified;
    double* skipped;  // largest bound of what was not verified, in the terms of the bounds
};

namespace nestling {

constexpr size_t kRowsAhead = 3;  // whose vectors are fetched before they are needed
constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kHighest = std::numeric_limits<float>::infinity();

struct Scored {
    double score;
    int64_t row;
    // Better ones first; of equal scores the lower row.
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
    float sure;  // a bound that always holds, where the other is only likely
    bool operator<(const Candidate& other) const { return bound > other.bound; }
};

// What is no number bounds nothing.
inline float safe(float bound) { return std::isnan(bound) ? kHighest : bound; }

// One query and the rows whose exact scores are known; a bound below the threshold cannot be among the best.
class Verifier {
public:
    Verifier(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
             const NestlingQueries& queries, int64_t number, int64_t k)
        : level_(level), vectors_(vectors), codes_(codes), best_(k), number_(number), k_(k) {
        query_ = queries.codes + number * codes.lines * 16;
        sum_ = queries.sums[number];
        likely_ = reinterpret_cast<const Factors*>(queries.likely) + number * 2;
        sure_ = queries.sure ? reinterpret_cast<const Factors*>(queries.sure) + number * 2 : nullptr;
        exact_ = queries.exact + number * vectors.dim;
        map_ = queries.bounds + number * 3;
    }

protected:
    bool may_be_found(int64_t row) const { return row < codes_.rows && (!codes_.allowed || codes_.allowed[row]); }

    // Exact scores of candidates, the highest bounds first, until those lie below the threshold.
    // Returns how many that were.
    size_t verify(std::vector<Candidate>& candidates) {
        std::sort(candidates.begin(), candidates.end());
        size_t i = 0;
        for (; i < candidates.size() && !(candidates[i].bound < threshold_); ++i) {
            if (i + kRowsAhead < candidates.size()) fetch(vectors_, candidates[i + kRowsAhead].row);
            verify(candidates[i].row);
        }
        return i;
    }

    // The exact score of a row.
    void verify(int64_t row) {
        ++verified_;
        best_.offer({score_of(level_, vectors_, row, exact_), row});
        if (!best_.full()) return;
        const double own = best_.worst() * map_[0];
        const double least = own + map_[1] - map_[2] - 4e-7 * (std::fabs(own) + std::fabs(map_[1]));
        threshold_ = std::fabs(least) < 1e38 ? float(least) : kLowest;
    }

    void skip(float bound) { skipped_ = std::max(skipped_, bound); }

    void write(const NestlingAnswers& answers, int64_t refined) {
        best_.write(answers.indices + number_ * k_, answers.scores + number_ * k_);
        answers.refined[number_] = refined;
        answers.verified[number_] = verified_;
        answers.skipped[number_] = skipped_;
    }

    const Level& level_;
    const NestlingVectors& vectors_;
    const NestlingCodes& codes_;
    const int8_t* query_;
    int32_t sum_;
    const Factors *likely_, *sure_;  // by coarse and by fine codes each
    float threshold_ = kLowest, skipped_ = kLowest;

private:
    Best best_;
    int64_t number_, k_, verified_ = 0;
    const double *exact_, *map_;
};

// Room for the survivors of a tile; whole registers are stored.
struct Room {
    static constexpr int64_t kBlocks = 512;
    static constexpr size_t kSize = (kBlocks + 1) * kLanes;
    int32_t rows[kSize], sums[kSize];
    float bounds[kSize];
};

// Memory of one search at a time, kept for the next: fresh pages for every query would cost as much as half a
// scan. It belongs to no thread, as threads that share a search end with it. Without a lock, a fork is no danger.
template <typename T> class Borrowed {
public:
    Borrowed() {
        for (auto& place : idle_)
            if ((held_ = place.exchange(nullptr))) return;
        held_ = new T();
    }
    ~Borrowed() {
        for (auto& place : idle_) {
            T* none = nullptr;
            if (place.compare_exchange_strong(none, held_)) return;
        }
        delete held_;
    }
    Borrowed(const Borrowed&) = delete;
    T& operator*() { return *held_; }

private:
    inline static std::atomic<T*> idle_[32];
    T* held_;
};

// The k best rows of the queries from `start` on, by scanning all four bits of all rows for many queries.
void search_batch(const Level& level, const NestlingVectors& vectors, const NestlingCodes& codes,
                  const NestlingQueries& queries, int64_t start, int64_t count, int64_t k,
                  const NestlingAnswers& answers);

}  // namespace nestling
