// Nested codes: 8 bits an entry, held as bit planes. A plane has a row of bytes for every vector; a byte holds the
// bits of eight entries, the first in its highest bit. The leading planes are the codes of fewer bits, the leading
// bytes of their rows those of a prefix.
#pragma once
#include <cstdint>
#include <cstring>

namespace nestling {

constexpr int64_t kMostPlanes = 8;
constexpr int64_t kRowBytes = 32;        // of a row of a plane that are gathered at a time
constexpr int64_t kBytesAhead = 2048;    // of a plane are fetched before they are needed
constexpr int64_t kGroupsTogether = 32;  // groups of eight codes whose bits are transposed side by side

// What turns entries into codes, as `BitCode.encode` of nestling/bits.py.
struct Cells {
    int64_t dim;
    const float *centre, *inverse;  // per entry
    float half, last, shrink, parts;
};
using EncodeFunction = void (*)(const Cells& cells, const float* row, uint8_t* codes);
using PackFunction = void (*)(const uint8_t* codes, int64_t dim, int64_t count, uint8_t* const* planes);
using UnpackPlanesFunction = void (*)(const uint8_t* const* planes, int64_t count, int64_t dim, uint8_t* codes);

// The values of codes by their leading bits: that of a cell, times a spread and plus a centre of the entry.
struct CellValues {
    const float *values, *spread, *centre;
    int64_t dim, shift;  // right, of codes of 8 bits
};
using DecodeFunction = void (*)(const CellValues& cells, const uint8_t* codes, float* entries);

// Sixteen rows of planes, of which a scan reads `bytes` each.
struct PlaneRows {
    const uint8_t* planes[kMostPlanes];  // null is one of zeros
    int64_t count, stride, bytes, rows;  // of planes; bytes from row to row, and of a row; rows that are there
};
// The rows as a block of packed codes (kernels.h) of 1, 2, 4 or 8 bits, one for each plane. The codes of the eight
// dims of a byte change their places: `places` of nestling/kernels/planes/native.py says where they go.
using GatherFunction = void (*)(const PlaneRows& rows, uint8_t* block);
// Evenly spaced levels close to the values of codes of 8 bits, which lie farther apart below `first` and from `last`
// on: (slope * code + offset) / 256, and beyond by 1, 2, 3, ... codes 1, 3, 5, ... times the tail less or more.
struct EvenLevels {
    uint16_t slope, offset, tail, first, last;
};
using LevelFunction = void (*)(const EvenLevels& levels, int64_t count, uint8_t* codes);
// The sum of (2 level - most) squared.
using SpreadFunction = int64_t (*)(const uint8_t* levels, int64_t count, int32_t most);
// Entries near levels: (centre + unit * level) * scale.
struct Grid {
    const double *centre, *unit;
    int64_t dim;
};
using NearFunction = void (*)(const Grid& grid, const uint8_t* levels, double scale, double* entries);
// How many bits of rows differ from those of a query; of the last byte, those of the mask count.
struct BitRows {
    const uint8_t* rows;
    int64_t stride, bytes;
    uint8_t mask;
};
using HammingFunction = void (*)(const BitRows& rows, int64_t count, const uint8_t* query, uint32_t* distances);

// Bit i of byte j becomes bit j of byte i.
inline uint64_t transposed(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull;
    return x ^ t ^ (t << 28);
}

inline uint64_t word_at(const uint8_t* bytes, int64_t count) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, size_t(count < 8 ? count : 8));
    return word;
}

}  // namespace nestling
