// What the kernels of every instruction set offer, and the layouts they read.
//
// A packed code of `bits` bits (1, 2, 4 or 8) lies in blocks of 16 rows. A block is `lines` lines of 64
// bytes; in each, row r owns the bytes 4r to 4r+3, and byte p of them holds, from its lowest bits up, the
// codes of the dims line*32/bits + 4s + p for s = 0, 1, ... So a dot product instruction that multiplies
// four bytes and adds them up works on 16 rows at once, and no sum across a register is ever needed.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nestling {

constexpr int kLanes = 16;
constexpr int kMostTogether = 6;  // queries that share one pass over the codes

// A bound of a row: scale * (alpha * t + beta) + gamma * radius + bias, where t = 2 * <query, code> - offset.
struct Factors {
    float alpha, beta, gamma;
};

// Bounds of many rows that are looked at again later, and <query, code> of each; from row `first` on.
struct Ledger {
    float* bounds;
    int32_t* sums;
    int64_t first;
};

// One query against one packed code. A row survives unless its bound by `factors` lies below the threshold;
// its bound by `sure` goes into the ledger, where there is one.
struct Probe {
    const int8_t* query;
    int32_t offset;
    Factors factors;
    float threshold;
    Factors sure;
    Ledger ledger;
};

struct Packed {
    const uint8_t* blocks;
    int64_t lines;
    const float *scale, *radius, *bias;  // bias may be null
};

struct Found {
    int32_t *rows, *sums;  // survivors, and <query, code> of each
    float* bounds;
    int64_t count;
    float skipped;  // largest bound among those that did not survive
};

enum Type : int32_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };

using ScanFunction = void (*)(const Packed&, int64_t first, int64_t last, const Probe*, Found*);
using SiftFunction = void (*)(const Ledger&, int64_t first, int64_t last, float threshold, Found*);
using FineFunction = int32_t (*)(const uint8_t* row, int64_t stride, const int8_t* query);
using ScoreFunction = double (*)(const void* row, const double* query, int64_t dim);

struct Level {
    ScanFunction scan[4][kMostTogether + 1];  // by log2 of bits and number of queries; may be null
    SiftFunction sift;                        // survivors among the rows of a ledger
    FineFunction fine;                        // two bits a dim, row by row: dim = s * stride + byte
    ScoreFunction dot[3];                     // by Type, summed in double precision
    ScoreFunction distance[3];                // squared
};

extern const Level kPlain;
#if defined(__x86_64__)
extern const Level kAvx2;
extern const Level kAvx512;
#endif

inline float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
    union { uint32_t bits; float value; } number;
    if (magnitude >= 0x7c00) number.bits = 0x7f800000u | (magnitude & 0x3ff) << 13;
    else if (magnitude < 0x400) number.value = float(magnitude) * 0x1p-24f;
    else number.bits = (magnitude << 13) + 0x38000000u;
    number.bits |= sign;
    return number.value;
}

template <typename T> inline double widen(T value) { return double(value); }
template <> inline double widen<uint16_t>(uint16_t value) { return half_to_float(value); }

}  // namespace nestling
