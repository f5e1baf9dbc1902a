// Rows that are held at one or more precisions, close to the levels of the same codes: an entry is about
// centre + unit * level.
#pragma once
#include "search.h"

#include <algorithm>
#include <vector>

// ---- the fields and their order are those of nestling/kernels/prefixes.py ----

struct NestlingKind {
    const float* values;    // [rows, at least the last of the dims]; null: the codes give them
    int64_t stride, whole;  // floats from row to row; entries whose length is that of a row, or 0 for length 1
};

struct NestlingHeld {
    int64_t rows, padded, sizes, kinds;  // `padded` is a multiple of 96; a kind is a precision
    int64_t stride, shift, is_cosine;    // bytes from row to row of codes; right, of codes that give values
    const int64_t* dims;                 // of each size, increasing
    const uint8_t* codes;                // [rows, at least the last of the dims]
    const float *cells, *spread, *centre;  // values of codes, as in planes.h
    const nestling::EvenLevels* levels;  // of codes
    const NestlingKind* values;          // of each kind
    float* lengths;                      // [kinds, sizes, padded]: see Limits; kLeftOut of a row that is left out
    float* doubts;                       // the same shape, or null where offsets have them
};

namespace nestling {

constexpr float kLeftOut = 3e38f;

// Values of rows at each precision, and exact scores.
class Values {
public:
    Values(const Level& level, const NestlingHeld& held)
        : level_(level), held_(held), entries_(size_t(held.dims[held.sizes - 1])), zeros_(most_entries(held)) {}

    // The leading entries of a row, until the next are asked for.
    const float* of(int64_t kind, int64_t row, int64_t dim) {
        const NestlingKind& own = held_.values[kind];
        if (own.values) return own.values + row * own.stride;
        level_.decode({held_.cells, held_.spread, held_.centre, dim, held_.shift}, held_.codes + row * held_.stride,
                      entries_.data());
        return entries_.data();
    }

    double square(const float* values, int64_t count) const {
        return level_.distance[kFloat32](values, zeros_.data(), count);
    }

    double score(int64_t kind, int64_t size, int64_t row, const double* query) {
        const int64_t dim = held_.dims[size];
        const float* values = of(kind, row, dim);
        const double product = level_.dot[kFloat32](values, query, dim);
        return held_.is_cosine ? product / std::sqrt(square(values, dim)) : product;
    }

    void fetch(int64_t kind, int64_t size, int64_t row) const {
        const NestlingKind& own = held_.values[kind];
        const char* from = own.values ? reinterpret_cast<const char*>(own.values + row * own.stride)
                                      : reinterpret_cast<const char*>(held_.codes + row * held_.stride);
        const int64_t bytes = held_.dims[size] * (own.values ? 4 : 1);
        for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
    }

private:
    static size_t most_entries(const NestlingHeld& held) {
        int64_t most = held.dims[held.sizes - 1];
        for (int64_t kind = 0; kind < held.kinds; ++kind) most = std::max(most, held.values[kind].whole);
        return size_t(most);
    }

    const Level& level_;
    const NestlingHeld& held_;
    std::vector<float> entries_;
    std::vector<double> zeros_;
};

}  // namespace nestling
