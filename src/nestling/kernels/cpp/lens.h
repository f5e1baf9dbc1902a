// Queries turned into what walks go towards.
#pragma once
#include "kernels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingLens {
    int64_t dim, width, columns;  // entries of a query, of a walk (four to a byte of a code), of a turned query
    const float* basis;           // [at least dim, columns], of which the first `width` are those of a walk
    const double* mean;           // [dim]
    double scale;
    int32_t cosine, biased;  // queries of length one; queries scaled and moved, and rows with a bias
    int32_t products;        // moved by as much of the mean as is in them, since products are compared
};

namespace nestling {

constexpr double kSmallestNorm = 1e-12;
constexpr int32_t kLargest = 127;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded, halves to the even number

// Eight side by side, so that the compiler can keep them in registers of any width.
constexpr int64_t kSideBySide = 8;

inline double length_of(const double* query, int64_t dim) {
    double sums[kSideBySide] = {}, total = 0;
    int64_t i = 0;
    for (; i + kSideBySide <= dim; i += kSideBySide)
        for (int64_t j = 0; j < kSideBySide; ++j) sums[j] += query[i + j] * query[i + j];
    for (; i < dim; ++i) total += query[i] * query[i];
    for (double sum : sums) total += sum;
    return std::sqrt(total);
}

template <typename T>
T largest_of(const T* values, int64_t count, T least) {
    T most[kSideBySide];
    std::fill(most, most + kSideBySide, least);
    int64_t i = 0;
    const auto raise = [](T& one, T value) { one = one < value ? value : one; };
    for (; i + kSideBySide <= count; i += kSideBySide)
        for (int64_t j = 0; j < kSideBySide; ++j) raise(most[j], std::fabs(values[i + j]));
    for (; i < count; ++i) raise(most[0], std::fabs(values[i]));
    return *std::max_element(most, most + kSideBySide);
}

// Whether a query is finite, and has a direction if that is what counts.
inline bool usable(const NestlingLens& lens, const double* query) {
    const double length = length_of(query, lens.dim);
    if (lens.cosine && length <= kSmallestNorm) return false;
    return std::isfinite(length) ||
           std::all_of(query, query + lens.dim, [](double entry) { return std::isfinite(entry); });
}

// A query of one walk, and memory for making it.
class Lens {
public:
    // Entries in terms of the frame, as many as the basis has rows or fewer, and what biases count.
    Aim aim(const Level& level, const NestlingLens& lens, const double* entries, int64_t count, float weight) {
        largest_ = largest_of(entries, count, DBL_MIN);
        units_.resize(size_t(count));
        for (int64_t i = 0; i < count; ++i) units_[size_t(i)] = float(entries[i] / largest_);
        turned_.resize(size_t(lens.columns));
        level.turn(units_.data(), count, lens.basis, lens.columns, turned_.data());
        const int64_t stride = lens.width / 4, ends = lens.biased ? 8 : 4;
        float most = FLT_MIN;
        for (int64_t start = 0; start < lens.width; start += stride)
            most = largest_of(&turned_[size_t(start)], stride - ends, most);
        const float step = most / float(kLargest);
        codes_.assign(size_t(lens.width), 0);
        int32_t sum = 0;
        for (int64_t start = 0; start < lens.width; start += stride)
            sum += code(&turned_[size_t(start)], stride - ends, step, &codes_[size_t(start)]);
        // Without biases the order is the same at every scale. Beside too large a one they do not count.
        return {codes_.data(), 3 * sum, lens.biased ? float(double(step) * largest_) : step, weight};
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
        const double length = length_of(query, lens.dim);
        direct_.resize(size_t(lens.dim));
        for (int64_t i = 0; i < lens.dim; ++i) direct_[size_t(i)] = query[i] / length;
        return direct_.data();
    }

    // Towards a query as it is given.
    Aim aim_at(const Level& level, const NestlingLens& lens, const double* query) {
        if (!lens.biased) return aim(level, lens, query, lens.dim, 0);
        const double* entries = moved(lens, query);
        return aim(level, lens, entries, lens.dim, float(weight_));
    }

    // A query relative to the mean of the rows, less all of the mean or, where products are compared, as much
    // as is in it: what rows share would take the levels of its code. A row's bias says what that adds to it.
    const double* moved(const NestlingLens& lens, const double* query) {
        const double* given = direct(lens, query);
        factor_ = lens.scale, weight_ = 1;
        if (lens.products) {
            factor_ = 1 / largest_of(given, lens.dim, DBL_MIN);
            double along = 0, square = 0;
            for (int64_t i = 0; i < lens.dim; ++i) {
                along += given[i] * factor_ * lens.mean[i];
                square += lens.mean[i] * lens.mean[i];
            }
            weight_ = along / square;
        }
        moved_.resize(size_t(lens.dim));
        for (int64_t i = 0; i < lens.dim; ++i) moved_[size_t(i)] = given[i] * factor_ - weight_ * lens.mean[i];
        return moved_.data();
    }

    // What the query that was moved last was multiplied by before, and how much biases count for it.
    double factor() const { return factor_; }
    double weight() const { return weight_; }

private:
    static int32_t code(const float* entries, int64_t count, float step, int8_t* codes) {
        int32_t sum = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int32_t whole = int32_t(entries[i] / step + kRound) - int32_t(kRound);
            codes[i] = int8_t(whole);
            sum += whole;
        }
        return sum;
    }

    std::vector<float> units_, turned_;
    std::vector<double> direct_, moved_, wide_;
    double largest_ = 0, factor_ = 1, weight_ = 0;
    std::vector<int8_t> codes_;
};

}  // namespace nestling
