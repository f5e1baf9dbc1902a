// Queries encoded in 8 bits: centred, rotated, quantised.
#pragma once
#include "kernels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingQueryEncoder {
    int64_t dim, width, columns;  // entries of a query; of its code, four to a byte of a row's; and of a rotated query
    const float* basis;           // [at least dim, columns], of which the first `width` give the code
    const double* mean;           // [dim]
    double scale;
    int32_t cosine, biased;  // queries are normalised; queries are scaled and centred, and rows have a bias
    int32_t products;        // queries lose their projection onto the mean, since products are compared
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
inline bool usable(const NestlingQueryEncoder& encoder, const double* query) {
    const double length = length_of(query, encoder.dim);
    if (encoder.cosine && length <= kSmallestNorm) return false;
    return std::isfinite(length) ||
           std::all_of(query, query + encoder.dim, [](double entry) { return std::isfinite(entry); });
}

// One encoded query at a time, and memory for it.
class QueryEncoder {
public:
    // Centred entries, at most as many as the basis has rows, and what biases are multiplied by.
    EncodedQuery encode(const Level& level, const NestlingQueryEncoder& encoder, const double* entries,
                        int64_t count, float weight) {
        largest_ = largest_of(entries, count, DBL_MIN);
        units_.resize(size_t(count));
        for (int64_t i = 0; i < count; ++i) units_[size_t(i)] = float(entries[i] / largest_);
        rotated_.resize(size_t(encoder.columns));
        level.rotate(units_.data(), count, encoder.basis, encoder.columns, rotated_.data());
        const int64_t stride = encoder.width / 4, ends = encoder.biased ? 8 : 4;
        float most = FLT_MIN;
        for (int64_t start = 0; start < encoder.width; start += stride)
            most = largest_of(&rotated_[size_t(start)], stride - ends, most);
        const float step = most / float(kLargest);
        codes_.assign(size_t(encoder.width), 0);
        int32_t sum = 0;
        for (int64_t start = 0; start < encoder.width; start += stride)
            sum += code(&rotated_[size_t(start)], stride - ends, step, &codes_[size_t(start)]);
        // Without biases the order is the same at every scale. Beside too large a one they do not count.
        return {codes_.data(), 3 * sum, encoder.biased ? float(double(step) * largest_) : step, weight};
    }

    // All entries of the last query, rotated.
    const double* rotated() {
        wide_.resize(rotated_.size());
        for (size_t i = 0; i < wide_.size(); ++i) wide_[i] = double(rotated_[i]) * largest_;
        return wide_.data();
    }

    // The query as exact scores take it: normalised for the cosine.
    const double* direct(const NestlingQueryEncoder& encoder, const double* query) {
        if (!encoder.cosine) return query;
        const double length = length_of(query, encoder.dim);
        direct_.resize(size_t(encoder.dim));
        for (int64_t i = 0; i < encoder.dim; ++i) direct_[size_t(i)] = query[i] / length;
        return direct_.data();
    }

    // A query as it is given.
    EncodedQuery encode_query(const Level& level, const NestlingQueryEncoder& encoder, const double* query) {
        if (!encoder.biased) return encode(level, encoder, query, encoder.dim, 0);
        const double* entries = centred(encoder, query);
        return encode(level, encoder, entries, encoder.dim, float(weight_));
    }

    // A query less the mean of the rows or, where products are compared, less its projection onto the mean. All
    // rows share the mean, so it would use up the levels of the code; the bias of a row holds what it adds.
    const double* centred(const NestlingQueryEncoder& encoder, const double* query) {
        const double* given = direct(encoder, query);
        factor_ = encoder.scale, weight_ = 1;
        if (encoder.products) {
            factor_ = 1 / largest_of(given, encoder.dim, DBL_MIN);
            double along = 0, square = 0;
            for (int64_t i = 0; i < encoder.dim; ++i) {
                along += given[i] * factor_ * encoder.mean[i];
                square += encoder.mean[i] * encoder.mean[i];
            }
            weight_ = along / square;
        }
        centred_.resize(size_t(encoder.dim));
        for (int64_t i = 0; i < encoder.dim; ++i) centred_[size_t(i)] = given[i] * factor_ - weight_ * encoder.mean[i];
        return centred_.data();
    }

    // Of the last query: the factor before it was centred, and what biases are multiplied by.
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

    std::vector<float> units_, rotated_;
    std::vector<double> direct_, centred_, wide_;
    double largest_ = 0, factor_ = 1, weight_ = 0;
    std::vector<int8_t> codes_;
};

}  // namespace nestling
