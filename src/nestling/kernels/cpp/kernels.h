// What the kernels of every instruction set offer, and the layouts they read.
//
// A packed code of `bits` bits (1, 2, 4 or 8) lies in blocks of 16 rows. A block is `lines` lines of 64
// bytes; in each, row r owns the bytes 4r to 4r+3, and byte p of them holds, from its lowest bits up, the
// codes of the dims line*32/bits + 4s + p for s = 0, 1, ... So a dot product instruction that multiplies
// four bytes and adds them up works on 16 rows at once, and no sum across a register is ever needed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "planes.h"

// Where the compiler knows how to use dot products in some functions only.
#if defined(__aarch64__) && (defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__) || __clang_major__ >= 16)
#define NESTLING_NEON
#endif

namespace nestling {

constexpr int kLanes = 16;
constexpr int kMostTogether = 4;    // queries that share one pass over the codes
constexpr int64_t kFetchAhead = 16;  // rows whose codes are fetched before they are needed

// A bound of a row: scale * (alpha * t + beta) + gamma * radius + bias, where t = 2 * <query, code> - offset.
struct Factors {
    float alpha, beta, gamma;
};

// One query against one packed code. A row survives unless its bound lies below the threshold.
struct Probe {
    const int8_t* query;
    int32_t offset;
    Factors factors;
    float threshold;
    int32_t* saved_sums;  // where <query, code> of every row goes, from the first row that is scanned on; or null
};

struct Packed {
    const uint8_t* blocks;
    int64_t lines;
    const float *scale, *radius, *bias;  // bias may be null
};

struct Found {
    int32_t *rows, *sums;  // survivors, and <query, code> of each
    float* bounds;         // or null, where nobody reads them
    int64_t count;
    float skipped;         // largest bound among those that did not survive
};

enum Type : int32_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };

using ScanFunction = void (*)(const Packed&, int64_t first, int64_t last, const Probe*, Found*);
// The same for rows whose <query, code> are in the probe's saved_sums.
using FilterFunction = void (*)(const Packed&, int64_t first, int64_t last, const Probe&, Found*);
// Survivors are compared once more, by the low two bits of codes whose high two bits gave their sums; what
// survives that stays. The low bits lie row by row: dim = s * stride + byte.
struct Fine {
    const uint8_t* codes;
    int64_t stride;
    const float *scale, *radius, *bias;
};
using RefineFunction = void (*)(const Fine&, const Probe&, Found*);
// A tile holds codes of one byte, block after block: four dims of its 16 rows are 64 bytes side by side, the
// next four dims follow. 64 bytes between blocks keep their lines from falling on the same places of a cache.
// Queries lie four together, in a set: four dims of each are 16 bytes side by side.
constexpr int64_t kWide = 6, kSet = 4;  // blocks and queries of which a product keeps the sums in registers
// <query, code> of rows of a tile: [queries of the set][rows]; `blocks` is a multiple of kWide.
using ProductFunction = void (*)(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums);
inline int64_t block_bytes(int64_t quads) { return 64 * (quads + 1); }
// A score at a prefix is at most (step * <query, levels> + offset + length * doubts of the row) / length of the row.
struct Limits {
    float step, offset, length, threshold;
};
// Of the rows of a tile in the same lane: the shortest and the longest length, and the most doubts, by setting.
struct Extremes {
    const float *shortest, *longest, *doubts;
};
// kWide blocks of a tile, whose settings are all prefixes for each of some kinds of rows.
struct PrefixTile {
    const uint8_t* codes;
    const int64_t* edges;  // in quads, of each size
    int64_t sizes, kinds, quads;
    const float *lengths, *doubts;  // of the rows, by setting: kind * sizes + size; doubts may be null, as offsets have them
    int64_t stride;                 // from setting to setting
    Extremes extremes;
};
struct Hit {
    int32_t limits, row, sum;  // which of the limits; counted from the first row of the tile; <query, levels>
};
// Rows that may reach the thresholds of a set of queries; limits are [query][setting]. Returns how many hits.
using PrefixFunction = int64_t (*)(const PrefixTile& tile, const int8_t* set, const Limits* limits, Hit* hits);
// Both halves of the codes of a block, of which the last rows may be missing.
struct Halves {
    const uint8_t *coarse, *fine;
    int64_t lines, rows;
};
using UnpackFunction = void (*)(const Halves& halves, uint8_t* block);
using ScoreFunction = double (*)(const void* row, const double* query, int64_t dim);

// A code is `stride` bytes of four 2-bit levels each, level s of byte j meeting entry s * stride + j of the
// query. The last bytes are numbers of the row; the query is zero there.
struct CodedRows {
    const uint8_t* codes;
    int64_t stride;
    int32_t biased;  // whether a code ends with a bias and a factor, or a factor alone
};

// An estimate of a row's score is (2 <query, code> - offset) * scale * factor + weight * bias.
struct EncodedQuery {
    const int8_t* query;
    int32_t offset;
    float scale, weight;
};

// Estimates, and the place of each among the rows that were asked for; with room for four more.
struct Estimates {
    float* values;
    int32_t* places;
};

struct Level {
    ScanFunction scan[4][kMostTogether + 1];  // by log2 of bits and number of queries; may be null
    FilterFunction filter;
    RefineFunction refine;
    UnpackFunction unpack;
    ProductFunction product;
    PrefixFunction prefixes;  // or null
    ScoreFunction dot[3];  // by Type, summed in double precision
    ScoreFunction distance[3];  // squared
    // Estimates, unless they lie below a threshold, of some rows or of the first `count` if `rows` is null.
    int64_t (*estimates)(const CodedRows& coded, const EncodedQuery& encoded, const int32_t* rows, int64_t count,
                         float threshold, const Estimates& out);
    // <a, b> for some rows b of `values`, whose length is a multiple of 64.
    void (*products)(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows, int64_t count,
                     int32_t* out);
    // Sum of the rows of a matrix times the entries of a vector, in order; its width is a multiple of 64.
    void (*rotate)(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out);
    // Of planes.h.
    EncodeFunction encode;
    DecodeFunction decode;
    PackFunction pack_planes;
    UnpackPlanesFunction unpack_planes;
    GatherFunction gather;
    LevelFunction level_codes;
    SpreadFunction spread;
    NearFunction near;
    HammingFunction hamming;
};

extern const Level kPlain;
#if defined(__x86_64__)
extern const Level kAvx2;
extern const Level kAvx512;
#endif
#if defined(NESTLING_NEON)
extern const Level kNeon;
bool has_neon();  // with dot products
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

// ---- one row at a time ----

inline float bound_of(const Packed& codes, int64_t row, int32_t sum, int32_t offset, const Factors& factors) {
    const float rest = factors.gamma * codes.radius[row] + (codes.bias ? codes.bias[row] : 0);
    return codes.scale[row] * (factors.alpha * float(2 * sum - offset) + factors.beta) + rest;
}

inline void sort_out_each(int64_t row, const int32_t* sums, const float* bounds, int count, float threshold,
                          Found& found) {
    for (int i = 0; i < count; ++i) {
        if (bounds[i] < threshold) {
            found.skipped = bounds[i] > found.skipped ? bounds[i] : found.skipped;
            continue;
        }
        found.rows[found.count] = int32_t(row + i);
        found.sums[found.count] = sums[i];
        if (found.bounds) found.bounds[found.count] = bounds[i];
        ++found.count;
    }
}

// <query, code> of the bytes from `start` on of a row of 2-bit codes, code s of byte j meeting entry s * stride + j.
inline int32_t sum_from(int64_t start, const uint8_t* code, int64_t stride, const int8_t* query) {
    int32_t sum = 0;
    for (int part = 0; part < 4; ++part)
        for (int64_t i = start; i < stride; ++i) sum += (code[i] >> 2 * part & 3) * query[part * stride + i];
    return sum;
}

template <typename T, bool DISTANCE>
double score_each(double total, const T* row, const double* query, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const double x = widen(row[i]), y = query[i];
        total += DISTANCE ? (x - y) * (x - y) : x * y;
    }
    return total;
}

inline const uint8_t* code_of(const CodedRows& coded, const int32_t* rows, int64_t place) {
    return coded.codes + (rows ? rows[place] : place) * coded.stride;
}

inline float number_of(const uint8_t* code, int64_t at) {
    float number;
    std::memcpy(&number, code + at, 4);
    return number;
}

inline float estimate(const CodedRows& coded, const EncodedQuery& encoded, const uint8_t* code, int32_t sum) {
    const float product = float(2 * sum - encoded.offset) * encoded.scale * number_of(code, coded.stride - 4);
    return coded.biased ? product + encoded.weight * number_of(code, coded.stride - 8) : product;
}

}  // namespace nestling
