// Queries turned into what walks go towards.
#pragma once
#include "graph_sums.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

// Filled in by Python; the fields and their order are those of nestling/kernels/walking_native.py.
struct NestlingLens {
    int64_t dim, width;  // entries of a query; columns of the basis, four to a byte of a code
    const float* basis;  // [at least dim, width]
    const double* mean;  // [dim], taken off after scaling; or null, where neither is done
    double scale;
    int32_t cosine, biased;
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
        double largest = DBL_MIN;
        for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(entries[i]));
        units_.resize(size_t(count));
        for (int64_t i = 0; i < count; ++i) units_[size_t(i)] = float(entries[i] / largest);
        turned_.resize(size_t(lens.width));
        codes_.resize(size_t(lens.width));
        sums.turn(units_.data(), count, lens.basis, lens.width, turned_.data());
        float most = FLT_MIN;
        for (float each : turned_) most = std::max(most, std::fabs(each));
        const float step = most / float(kLargest);
        int32_t sum = 0;
        for (size_t i = 0; i < codes_.size(); ++i) {
            codes_[i] = int8_t(int32_t(turned_[i] / step + kRound) - int32_t(kRound));
            sum += codes_[i];
        }
        // Without biases the order is the same at every scale. Beside too large a one they do not count.
        return {codes_.data(), 3 * sum, lens.biased ? float(double(step) * largest) : step};
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
        if (!lens.mean) return aim(sums, lens, query, lens.dim);
        moved_.resize(size_t(lens.dim));
        for (int64_t i = 0; i < lens.dim; ++i) moved_[size_t(i)] = query[i] * lens.scale - lens.mean[i];
        return aim(sums, lens, moved_.data(), lens.dim);
    }

private:
    std::vector<float> units_, turned_;
    std::vector<double> direct_, moved_;
    std::vector<int8_t> codes_;
};

}  // namespace nestling
