// Sums that walking and building a graph need, for every instruction set.
#pragma once
#include <cstdint>
#include <cstring>

namespace nestling {

// A code is `stride` bytes of four 2-bit levels each, level s of byte j meeting entry s * stride + j of the
// query. The last bytes are numbers of the row; the query is zero there.
struct CodedRows {
    const uint8_t* codes;
    int64_t stride;
    int32_t biased;  // whether a code ends with a bias and a factor, or a factor alone
};

// What a walk goes towards: an estimate is (2 <query, code> - offset) * scale * factor + weight * bias.
struct Aim {
    const int8_t* query;
    int32_t offset;
    float scale, weight;
};

// Estimates, and the place of each among the rows that were asked for; with room for four more.
struct Estimates {
    float* values;
    int32_t* places;
};

struct GraphSums {
    // Estimates, unless they lie below a threshold, of some rows or of the first `count` if `rows` is null.
    int64_t (*estimates)(const CodedRows& coded, const Aim& aim, const int32_t* rows, int64_t count,
                         float threshold, const Estimates& out);
    // <a, b> for some rows b of `values`, whose length is a multiple of 64.
    void (*products)(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows, int64_t count,
                     int32_t* out);
    // Sum of the rows of a matrix times the entries of a vector, in order; its width is a multiple of 64.
    void (*turn)(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out);
};

const GraphSums& graph_sums_of(int32_t level);

inline const uint8_t* code_of(const CodedRows& coded, const int32_t* rows, int64_t place) {
    return coded.codes + (rows ? rows[place] : place) * coded.stride;
}

inline float number_of(const uint8_t* code, int64_t at) {
    float number;
    std::memcpy(&number, code + at, 4);
    return number;
}

inline float estimate(const CodedRows& coded, const Aim& aim, const uint8_t* code, int32_t sum) {
    const float product = float(2 * sum - aim.offset) * aim.scale * number_of(code, coded.stride - 4);
    return coded.biased ? product + aim.weight * number_of(code, coded.stride - 8) : product;
}

}  // namespace nestling
