// Exact search of codes: the rows whose decoded prefixes score best with queries in floats.
//
// Sixteen rows at a time, the leading bits are put into packed codes (kernels.h), whose products with queries of
// 8 bits give bounds on the scores. A row is decoded only if its bound reaches the k-th best score so far.
#include "search.h"

#include <algorithm>
#include <new>
#include <vector>

using namespace nestling;

// ---- the fields and their order are those of nestling/kernels/planes/native.py ----

struct NestlingSlice {
    const uint8_t* planes[kMostPlanes];  // the most significant bit first
    int64_t rows, stride, dim, bits;     // bytes from row to row; entries and planes that count
    const float *values, *spread, *centre;  // of cells, by code; of entries
    const float *factor, *bias;          // per row, or null: of bounds
    const float* rest;                   // per code, or null: what values differ from evenly spaced ones
    const EvenLevels* levels;            // of codes of 8 bits; null for fewer, whose values are evenly spaced
    int32_t kind;                        // of scores
};

struct NestlingSliceQueries {
    int64_t count, width;  // entries of an encoded query
    const int8_t* codes;   // [count, width], in the places of packed codes
    const int32_t* offsets;
    const float* factors;  // [count, 2]: alpha and beta of bounds that always hold
    const double* exact;   // [count, dim]
};

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr int64_t kTileBytes = 1 << 16, kFirstBlocks = 16;
constexpr int64_t kRowsFetchedAhead = 8;  // of a shortlist, whose rows lie far apart
constexpr int64_t kMostAtOnce = 64;  // queries that share the packing of a tile

enum Kind : int32_t { kDot = 0, kCosine = 1, kDistance = 2 };

// Values of one row at a time, and what they sum up to.
class Decoder {
public:
    Decoder(const Level& level, const NestlingSlice& slice)
        : level_(level), slice_(slice), codes_(size_t(slice.dim + 8)), entries_(size_t(slice.dim)),
          zeros_(size_t(slice.dim)) {}

    double score(int64_t row, const double* query) {
        decode(row);
        if (slice_.kind == kDistance) return -level_.distance[kFloat32](entries_.data(), query, slice_.dim);
        const double product = level_.dot[kFloat32](entries_.data(), query, slice_.dim);
        if (slice_.kind == kDot) return product;
        const double square = this->square();
        return square > 0 ? product / std::sqrt(square) : 0;
    }

    void fetch(int64_t row) const {
        const int64_t bytes = (slice_.dim + 7) / 8;
        for (int64_t i = 0; i < slice_.bits; ++i)
            for (int64_t at = 0; at < bytes; at += 64)
                __builtin_prefetch(slice_.planes[i] + row * slice_.stride + at);
    }

    // Squared lengths of the values, of those of the cells, and of what these differ from evenly spaced ones.
    void measure(int64_t row, double squares[3]) {
        decode(row);
        squares[0] = square();
        squares[1] = square_of(slice_.values);
        squares[2] = slice_.rest ? square_of(slice_.rest) : 0;
    }

private:
    int64_t shift() const { return kMostPlanes - slice_.bits; }

    double square() const { return level_.distance[kFloat32](entries_.data(), zeros_.data(), slice_.dim); }

    double square_of(const float* values) {
        for (int64_t i = 0; i < slice_.dim; ++i) entries_[size_t(i)] = values[codes_[size_t(i)] >> shift()];
        return square();
    }

    void decode(int64_t row) {
        const uint8_t* planes[kMostPlanes];
        for (int64_t i = 0; i < slice_.bits; ++i) planes[i] = slice_.planes[i] + row * slice_.stride;
        level_.unpack_planes(planes, slice_.bits, slice_.dim, codes_.data());
        level_.decode({slice_.values, slice_.spread, slice_.centre, slice_.dim, shift()}, codes_.data(),
                      entries_.data());
    }

    const Level& level_;
    const NestlingSlice& slice_;
    std::vector<uint8_t> codes_;
    std::vector<float> entries_;
    std::vector<double> zeros_;
};

// Some rows as packed codes, with the numbers that bounds need.
struct Tile {
    std::vector<uint8_t> blocks;
    std::vector<float> factor, bias, zeros;
    Room room[kMostTogether];
};

class SliceSearch {
public:
    SliceSearch(const Level& level, const NestlingSlice& slice, const NestlingSliceQueries& queries,
                const uint8_t* allowed, int64_t k, Tile& tile)
        : level_(level), slice_(slice), queries_(queries), allowed_(allowed), tile_(tile), decoder_(level, slice),
          best_(size_t(queries.count), Best(k)), thresholds_(size_t(queries.count), kLowest) {
        planes_ = slice.bits == 3 ? 4 : slice.bits;
        lines_ = ((slice.dim + 7) / 8 + 3) / 4 * planes_;
        most_ = std::clamp<int64_t>(kTileBytes / (64 * lines_), 1, Room::kBlocks);
        tile.blocks.resize(size_t(most_ * lines_ * 64));
        for (auto* each : {&tile.factor, &tile.bias, &tile.zeros}) each->assign(size_t(most_ * kLanes), 0);
    }

    void look(int64_t first, int64_t last) {
        int64_t step = std::min(kFirstBlocks, most_);  // few rows at first: they set the first threshold
        for (int64_t block = first; block < last; block += step, step = most_) {
            const int64_t blocks = std::min(step, last - block);
            fill(block, blocks);
            for (int64_t start = 0; start < queries_.count; start += kMostTogether)
                compare(block * kLanes, blocks, start, std::min<int64_t>(kMostTogether, queries_.count - start));
        }
    }

    void write(int64_t k, int64_t* rows, double* scores) {
        for (int64_t i = 0; i < queries_.count; ++i) best_[size_t(i)].write(rows + i * k, scores + i * k);
    }

private:
    void fill(int64_t first, int64_t blocks) {
        PlaneRows rows = {{}, planes_, slice_.stride, (slice_.dim + 7) / 8, 0};
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t row = (first + block) * kLanes;
            rows.rows = std::min<int64_t>(kLanes, slice_.rows - row);
            for (int64_t i = 0; i < slice_.bits; ++i) rows.planes[i] = slice_.planes[i] + row * slice_.stride;
            level_.gather(rows, tile_.blocks.data() + block * lines_ * 64);
        }
        if (slice_.levels) level_.level_codes(*slice_.levels, blocks * lines_ * 64, tile_.blocks.data());
        const int64_t row = first * kLanes, count = std::min(blocks * kLanes, slice_.rows - row);
        if (slice_.factor) std::copy_n(slice_.factor + row, count, tile_.factor.data());
        else std::fill_n(tile_.factor.data(), count, 1.0f);
        if (slice_.bias) std::copy_n(slice_.bias + row, count, tile_.bias.data());
    }

    void compare(int64_t row, int64_t blocks, int64_t start, int64_t count) {
        const Packed packed = {tile_.blocks.data(), lines_, tile_.factor.data(), tile_.zeros.data(),
                               slice_.bias ? tile_.bias.data() : nullptr};
        Probe probes[kMostTogether];
        Found found[kMostTogether];
        for (int64_t i = 0; i < count; ++i) {
            const int64_t query = start + i;
            const float* factors = queries_.factors + 2 * query;
            Room& room = tile_.room[i];
            probes[i] = {queries_.codes + query * queries_.width, queries_.offsets[query],
                         {factors[0], factors[1], 0}, thresholds_[size_t(query)], nullptr};
            found[i] = {room.rows, room.sums, room.bounds, 0, kHighest};
        }
        const int64_t bits_log2 = planes_ == 1 ? 0 : planes_ == 2 ? 1 : planes_ == 4 ? 2 : 3;
        const ScanFunction* scans = level_.scan[bits_log2];
        for (int64_t done = 0; done < count;) {
            int64_t together = count - done;
            while (!scans[together]) --together;
            scans[together](packed, 0, blocks, probes + done, found + done);
            done += together;
        }
        for (int64_t i = 0; i < count; ++i) follow(row, found[i], start + i);
    }

    // Exact scores of rows that may be among the best, the highest bounds first.
    void follow(int64_t first, const Found& found, int64_t query) {
        float& threshold = thresholds_[size_t(query)];
        candidates_.clear();
        for (int64_t i = 0; i < found.count; ++i) {
            const int64_t row = first + found.rows[i];
            if (row < slice_.rows && (!allowed_ || allowed_[row]))
                candidates_.push_back({safe(found.bounds[i]), int32_t(found.rows[i]), 0});
        }
        std::sort(candidates_.begin(), candidates_.end());
        Best& best = best_[size_t(query)];
        for (const Candidate& one : candidates_) {
            if (one.bound < threshold) break;
            const int64_t row = first + one.row;
            best.offer({decoder_.score(row, queries_.exact + query * slice_.dim), row});
            if (best.full()) threshold = threshold_of(best.worst(), query);
        }
    }

    // Bounds on squared distances leave out what is the same for all rows.
    float threshold_of(double worst, int64_t query) const {
        double least = worst;
        if (slice_.kind == kDistance) {
            double square = 0;
            const double* exact = queries_.exact + query * slice_.dim;
            for (int64_t i = 0; i < slice_.dim; ++i) square += exact[i] * exact[i];
            least = (worst + square) / 2 - 1e-12 * square;
        }
        least -= 4e-7 * std::fabs(least);
        return std::fabs(least) < 1e38 ? float(least) : kLowest;
    }

    const Level& level_;
    const NestlingSlice& slice_;
    const NestlingSliceQueries& queries_;
    const uint8_t* allowed_;
    Tile& tile_;
    Decoder decoder_;
    std::vector<Best> best_;
    std::vector<float> thresholds_;
    std::vector<Candidate> candidates_;
    int64_t planes_, lines_, most_;
};

}  // namespace

// The k best rows of every query among some blocks of 16 rows; of equal scores the lower row.
EXPORT int64_t nestling_search_slice(int32_t number, const NestlingSlice* slice, const NestlingSliceQueries* queries,
                                     int64_t first, int64_t last, const uint8_t* allowed, int64_t k, int64_t* rows,
                                     double* scores) {
    try {
        Borrowed<Tile> borrowed;
        for (int64_t start = 0; start < queries->count; start += kMostAtOnce) {
            const NestlingSliceQueries some = {std::min(kMostAtOnce, queries->count - start), queries->width,
                                               queries->codes + start * queries->width, queries->offsets + start,
                                               queries->factors + 2 * start, queries->exact + start * slice->dim};
            SliceSearch search(level_of(number), *slice, some, allowed, k, *borrowed);
            search.look(first, last);
            search.write(k, rows + start * k, scores + start * k);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Exact scores of rows of a shortlist for each query; -1 is no row, and gets nan.
EXPORT int64_t nestling_score_slice(int32_t number, const NestlingSlice* slice, const double* queries, int64_t count,
                                    const int64_t* shortlist, int64_t length, double* scores) {
    try {
        Decoder decoder(level_of(number), *slice);
        for (int64_t i = 0; i < count * length; ++i) {
            const int64_t ahead = i + kRowsFetchedAhead < count * length ? shortlist[i + kRowsFetchedAhead] : -1;
            if (ahead >= 0) decoder.fetch(ahead);
            scores[i] = shortlist[i] < 0 ? std::numeric_limits<double>::quiet_NaN()
                                         : decoder.score(shortlist[i], queries + i / length * slice->dim);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}

// Squared lengths of all rows, three each: see `Decoder`.
EXPORT int64_t nestling_measure_slice(int32_t number, const NestlingSlice* slice, double* squares) {
    try {
        Decoder decoder(level_of(number), *slice);
        for (int64_t row = 0; row < slice->rows; ++row) decoder.measure(row, squares + 3 * row);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
