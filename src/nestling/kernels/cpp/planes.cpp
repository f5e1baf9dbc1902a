// The C interface of codes and bit planes: coding, and comparing bits by counting those that differ.
#include "planes.h"

#include "search.h"

#include <algorithm>
#include <new>
#include <vector>

using namespace nestling;

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kTileRows = 2048;  // of which the distances stay in the first cache, and the bits in the second

// The k nearest so far of distances that are small whole numbers: they are counted, not compared.
class Counted {
public:
    Counted(int64_t k, int64_t most) : k_(k), limit_(uint32_t(most) + 1), counts_(size_t(most) + 2) {}

    // Rows come in rising order, so that of equal distances the first is kept.
    void offer(int64_t row, uint32_t distance) {
        found_.push_back({distance, row});
        ++counts_[distance];
        ++below_;
        while (below_ >= k_) below_ -= counts_[--limit_];
        if (int64_t(found_.size()) > 4 * k_ + kTileRows) drop();
    }

    uint32_t limit() const { return limit_; }  // what is not below it is not among the nearest

    void write(int64_t* rows, int32_t* distances) {
        drop();
        std::stable_sort(found_.begin(), found_.end(),
                         [](const Near& a, const Near& b) { return a.distance < b.distance; });
        for (int64_t i = 0; i < k_; ++i) {
            const bool there = i < int64_t(found_.size());
            rows[i] = there ? found_[size_t(i)].row : -1;
            distances[i] = there ? int32_t(found_[size_t(i)].distance) : -1;
        }
    }

private:
    struct Near {
        uint32_t distance;
        int64_t row;
    };
    void drop() {
        const auto is_far = [this](const Near& one) { return one.distance > limit_; };
        found_.erase(std::remove_if(found_.begin(), found_.end(), is_far), found_.end());
    }

    int64_t k_, below_ = 0;
    uint32_t limit_;  // distance of the k-th, once there are as many
    std::vector<int64_t> counts_;
    std::vector<Near> found_;
};

// Most rows are too far: they are left out sixteen at a time.
void select(const uint32_t* distances, int64_t first, int64_t count, const uint8_t* allowed, Counted& nearest) {
    for (int64_t start = 0; start < count; start += kLanes) {
        const int64_t some = std::min<int64_t>(kLanes, count - start);
        const uint32_t limit = nearest.limit();
        uint32_t near = 0;
        for (int64_t i = 0; i < some; ++i) near |= uint32_t(distances[start + i] < limit);
        if (!near) continue;
        for (int64_t row = start; row < start + some; ++row)
            if (distances[row] < nearest.limit() && (!allowed || allowed[first + row]))
                nearest.offer(first + row, distances[row]);
    }
}

}  // namespace

// Codes of rows of floats.
EXPORT int64_t nestling_encode(int32_t number, const Cells* cells, const uint8_t* rows, int64_t stride, int64_t count,
                               uint8_t* codes) {
    const EncodeFunction encode = level_of(number).encode;
    for (int64_t i = 0; i < count; ++i)
        encode(*cells, reinterpret_cast<const float*>(rows + i * stride), codes + i * cells->dim);
    return 0;
}

// Values of rows of codes.
EXPORT int64_t nestling_decode(int32_t number, const CellValues* cells, const uint8_t* codes, int64_t stride,
                               int64_t count, float* entries) {
    const DecodeFunction decode = level_of(number).decode;
    for (int64_t i = 0; i < count; ++i) decode(*cells, codes + i * stride, entries + i * cells->dim);
    return 0;
}

// The leading planes of codes of 8 bits.
EXPORT int64_t nestling_pack_planes(int32_t number, const uint8_t* codes, int64_t stride, int64_t rows, int64_t dim,
                                    int64_t count, uint8_t* const* planes) {
    const PackFunction pack = level_of(number).pack_planes;
    const int64_t bytes = (dim + 7) / 8;
    uint8_t* places[kMostPlanes];
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t plane = 0; plane < count; ++plane) places[plane] = planes[plane] + row * bytes;
        pack(codes + row * stride, dim, count, places);
    }
    return 0;
}

// Codes of 8 bits of some leading planes; other bits are zero.
EXPORT int64_t nestling_unpack_planes(int32_t number, const uint8_t* const* planes, int64_t stride, int64_t rows,
                                      int64_t dim, int64_t count, uint8_t* codes) {
    const UnpackPlanesFunction unpack = level_of(number).unpack_planes;
    const uint8_t* places[kMostPlanes];
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t plane = 0; plane < count; ++plane) places[plane] = planes[plane] + row * stride;
        unpack(places, count, dim, codes + row * dim);
    }
    return 0;
}

// The k rows of bits that differ least from each query, the nearest first; of equal ones the lower row.
EXPORT int64_t nestling_hamming(int32_t number, const BitRows* bits, int64_t first, int64_t last,
                                const uint8_t* allowed, const uint8_t* queries, int64_t count, int64_t k,
                                int64_t* found_rows, int32_t* found_distances) {
    try {
        const HammingFunction hamming = level_of(number).hamming;
        std::vector<Counted> nearest(size_t(count), Counted(k, 8 * bits->bytes));
        std::vector<uint32_t> distances(kTileRows);
        for (int64_t start = first; start < last; start += kTileRows) {
            const int64_t rows = std::min(kTileRows, last - start);
            const BitRows tile = {bits->rows + start * bits->stride, bits->stride, bits->bytes, bits->mask};
            for (int64_t i = 0; i < count; ++i) {
                hamming(tile, rows, queries + i * bits->bytes, distances.data());
                select(distances.data(), start, rows, allowed, nearest[size_t(i)]);
            }
        }
        for (int64_t i = 0; i < count; ++i) nearest[size_t(i)].write(found_rows + i * k, found_distances + i * k);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
