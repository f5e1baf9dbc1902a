// Queries that were encoded before.
#pragma once
#include "beam_search.h"

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingEncodedQueries {
    int64_t count;
    const int8_t* codes;   // [count, 4 * stride]
    const int32_t* sums;   // of the codes
    const float* scales;   // of the codes
    const float* weights;  // of the biases of rows
};

namespace nestling {

inline auto queries_of(const NestlingGraph& graph, const NestlingEncodedQueries& queries) {
    return [&](int64_t number) {
        return EncodedQuery{queries.codes + number * 4 * graph.stride, 3 * queries.sums[number],
                            queries.scales[number], queries.weights[number]};
    };
}

}  // namespace nestling
