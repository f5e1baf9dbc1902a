// What the entry points of the library share: levels by number, and exact scores of stored rows.
#pragma once
#include "kernels.h"

#include <algorithm>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Filled in by Python; the fields and their order are those of nestling/kernels/scans/native.py.
struct NestlingVectors {
    const uint8_t* data;
    int64_t stride, dim;  // bytes from row to row; entries that count
    const double* scale;  // per row, or null: inner products are multiplied by it
    int32_t type, distance;
};

namespace nestling {

enum LevelNumber : int32_t { kPlainNumber = 0, kAvx2Number = 1, kAvx512Number = 2, kNeonNumber = 3 };

inline const Level& level_of(int32_t number) {
#if defined(__x86_64__)
    if (number == kAvx2Number) return kAvx2;
    if (number == kAvx512Number) return kAvx512;
#endif
#if defined(NESTLING_NEON)
    if (number == kNeonNumber) return kNeon;
#endif
    (void)number;
    return kPlain;
}

inline double score_of(const Level& level, const NestlingVectors& vectors, int64_t row, const double* query) {
    const uint8_t* data = vectors.data + row * vectors.stride;
    if (vectors.distance) return -level.distance[vectors.type](data, query, vectors.dim);
    const double product = level.dot[vectors.type](data, query, vectors.dim);
    return vectors.scale ? product * vectors.scale[row] : product;
}

inline void fetch(const NestlingVectors& vectors, int64_t row) {
    const int64_t bytes = vectors.dim << (vectors.type == kFloat32 ? 2 : vectors.type == kFloat16 ? 1 : 0);
    const uint8_t* data = vectors.data + row * vectors.stride;
    for (int64_t i = 0; i < std::min<int64_t>(bytes, 4096); i += 64) __builtin_prefetch(data + i);
}

}  // namespace nestling
