// Queries turned into what walks go towards.
#pragma once
#include "graph_sums.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

// Filled in by Python; the fields and their order are those of nestling/kernels/walking_native.py.
struct NestlingLens {
    int64_t dim, width, columns;  // entries of a query, of a walk (four to a byte of a code), of a turned query
    const float* basis;           // [at least dim, columns], of which the first `width` are those of a walk
    const double* mean;           // [dim]
    double scale;
    int32_t cosine, biased;  // queries of length one; queries scaled and moved, and rows with a bias
};

namespace nestling {

constexpr double kSmallestNorm = 1e-12;
constexpr int32_t kLargest = 127;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded, halves to the even number

inline double length_of(const NestlingLens& lens, const double* query) {
    double square = 0;
    for (int64_t i = 0; i < lens.dim; ++i) square += query[i] * query[i];
    return std::sqrt(square);
}

// Whether a query is finite, and has a direction if that is what counts.
inline bool usable(const NestlingLens& lens, const double* query) {
    double sum = 0;
    for (int64_t i = 0; i < lens.dim; ++i) sum += query[i] * 0;  // zero, or NaN
    return sum == 0 && !(lens.cosine && length_of(lens, query) <= kSmallestNorm);
}

// A query of one walk, and memory for making it.
class Lens {
public:
    // Entries in terms of the frame, as many as the basis has rows or fewer.
    Aim aim(const GraphSums& sums, const NestlingLens& lens, const double* entries, int64_t count) {
        largest_ = DBL_MIN;
        for (int64_t i = 0; i < count; ++i) largest_ = std::max(largest_, std::fabs(entries[i]));
        units_.resize(size_t(count));
        for (int64_t i = 0; i < count; ++i) units_[size_t(i)] = float(entries[i] / largest_);
        turned_.resize(size_t(lens.columns));
        sums.turn(units_.data(), count, lens.basis, lens.columns, turned_.data());
        const int64_t stride = lens.width / 4, ends = lens.biased ? 8 : 4;
        float most = FLT_MIN;
        for (int64_t i = 0; i < lens.width; ++i)
            if (i % stride < stride - ends) most = std::max(most, std::fabs(turned_[size_t(i)]));
        const float step = most / float(kLargest);
        codes_.assign(size_t(lens.width), 0);
        int32_t sum = 0;
        for (int64_t start = 0; start < lens.width; start += stride)
            for (int64_t i = start; i < start + stride - ends; ++i) {
                codes_[size_t(i)] = int8_t(int32_t(turned_[size_t(i)] / step + kRound) - int32_t(kRound));
                sum += codes_[size_t(i)];
            }
        // Without biases the order is the same at every scale. Beside too large a one they do not count.
        return {codes_.data(), 3 * sum, lens.biased ? float(double(step) * largest_) : step};
    }

    // All entries of what was aimed last, turned.
    const double* turned() {
        wide_.resize(turned_.size());
        for (size_t i = 0; i < wide_.size(); ++i) wide_[i] = double(turned_[i]) * largest_;
        return wide_.data();
    }

    // The query as exact scores take it: of length one for the cosine.
    const double* direct(const NestlingLens& lens, const double* query) {
        if (!lens.cosine) return query;
        const double length = length_of(lens, query);
        direct_.resize(size_t(lens.dim));
        for (int64_t i = 0; i < lens.dim; ++i) direct_[size_t(i)] = query[i] / length;
        return direct_.data();
    }

    // Towards a query as it is given.
    Aim aim_at(const GraphSums& sums, const NestlingLens& lens, const double* query) {
        if (!lens.biased) return aim(sums, lens, query, lens.dim);
        return aim(sums, lens, moved(lens, query), lens.dim);
    }

    const double* moved(const NestlingLens& lens, const double* query) {
        moved_.resize(size_t(lens.dim));
        for (int64_t i = 0; i < lens.dim; ++i) moved_[size_t(i)] = query[i] * lens.scale - lens.mean[i];
        return moved_.data();
    }

private:
    std::vector<float> units_, turned_;
    std::vector<double> direct_, moved_, wide_;
    double largest_ = 0;
    std::vector<int8_t> codes_;
};

}  // namespace nestling
