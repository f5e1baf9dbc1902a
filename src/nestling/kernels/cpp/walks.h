// Walks that were aimed before.
#pragma once
#include "walker.h"

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingWalks {
    int64_t count;
    const int8_t* codes;   // [count, 4 * stride]
    const int32_t* sums;   // of the codes
    const float* scales;   // of the codes
    const float* weights;  // of the biases of rows
};

namespace nestling {

inline auto aims_of(const NestlingGraph& graph, const NestlingWalks& walks) {
    return [&](int64_t number) {
        return Aim{walks.codes + number * 4 * graph.stride, 3 * walks.sums[number], walks.scales[number],
                   walks.weights[number]};
    };
}

}  // namespace nestling
