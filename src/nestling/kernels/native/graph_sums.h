// Sums that walking and building a graph need, for every instruction set.
#pragma once
#include <cstdint>

namespace nestling {

// A code is `stride` bytes of four 2-bit levels each, level s of byte j meeting entry s * stride + j of the
// query. The last bytes are numbers of the row; the query is zero there.
struct GraphSums {
    // <query, code> of some rows, or of the first `count` if `rows` is null.
    void (*codes)(const uint8_t* codes, int64_t stride, const int32_t* rows, int64_t count,
                  const int8_t* query, int32_t* sums);
    // <a, b> of rows whose length is a multiple of 64.
    int32_t (*product)(const int8_t* a, const int8_t* b, int64_t dim);
};

const GraphSums& graph_sums_of(int32_t level);

}  // namespace nestling
