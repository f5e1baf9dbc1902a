// The kernels in portable C++, which compilers turn into the instructions that all machines have.
#include "kernels.h"

namespace nestling {
namespace {

inline void sort_out(int64_t row, int32_t sum, float bound, float threshold, Found& found) {
    if (bound < threshold) {
        found.skipped = bound > found.skipped ? bound : found.skipped;
        return;
    }
    found.rows[found.count] = int32_t(row);
    found.sums[found.count] = sum;
    if (found.bounds) found.bounds[found.count] = bound;
    ++found.count;
}

inline float bound_of(const Packed& codes, int64_t row, float t, const Factors& factors) {
    const float rest = factors.gamma * codes.radius[row] + (codes.bias ? codes.bias[row] : 0);
    return codes.scale[row] * (factors.alpha * t + factors.beta) + rest;
}

inline void keep(const Packed& codes, int64_t row, int32_t sum, const Probe& probe, Found& found) {
    const float bound = bound_of(codes, row, float(2 * sum - probe.offset), probe.factors);
    sort_out(row, sum, bound, probe.threshold, found);
}

template <int BITS>
void scan(const Packed& codes, int64_t first, int64_t last, const Probe* probe, Found* found) {
    constexpr int kParts = 8 / BITS, kMask = (1 << BITS) - 1;
    for (int64_t block = first; block < last; ++block) {
        const uint8_t* line = codes.blocks + block * codes.lines * 64;
        const int8_t* query = probe->query;
        int32_t sums[kLanes] = {};
        for (int64_t i = 0; i < codes.lines; ++i, line += 64)
            for (int part = 0; part < kParts; ++part, query += 4)
                for (int row = 0; row < kLanes; ++row) {
                    int32_t sum = 0;
                    for (int p = 0; p < 4; ++p)
                        sum += ((line[4 * row + p] >> (part * BITS)) & kMask) * query[p];
                    sums[row] += sum;
                }
        for (int lane = 0; lane < kLanes; ++lane) {
            if (probe->ledger) probe->ledger[(block - first) * kLanes + lane] = sums[lane];
            keep(codes, block * kLanes + lane, sums[lane], *probe, *found);
        }
    }
}

void sift(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    for (int64_t row = first * kLanes; row < last * kLanes; ++row)
        keep(codes, row, probe.ledger[row - first * kLanes], probe, *found);
}

void refine(const Fine& fine, const Probe& probe, Found* found) {
    const int64_t count = found->count;
    found->count = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int32_t row = found->rows[i];
        const uint8_t* codes = fine.codes + row * fine.stride;
        int32_t sum = 4 * found->sums[i];
        for (int part = 0; part < 4; ++part)
            for (int64_t j = 0; j < fine.stride; ++j)
                sum += ((codes[j] >> (2 * part)) & 3) * probe.query[part * fine.stride + j];
        const Packed all = {nullptr, 0, fine.scale, fine.radius, fine.bias};
        keep(all, row, sum, probe, *found);
    }
}

void unpack(const Halves& halves, uint8_t* block) {
    const int64_t lines = halves.lines;
    // The low bits stand row by row; they are turned so that four bytes of 16 rows stand together.
    for (int64_t row = 0; row < kLanes; ++row) {
        const uint8_t* fine = halves.fine + (row < halves.rows ? row : 0) * 4 * lines;
        for (int64_t i = 0; i < lines; ++i) __builtin_memcpy(block + 64 * i + 4 * row, fine + 4 * i, 4);
    }
    for (int64_t quad = 4 * lines - 1; quad >= 0; --quad) {  // falling, as the low bits stand in front
        const int part = int(2 * (quad % 4)), up = int(2 * (quad / lines));
        const uint8_t *low = block + quad % lines * 64, *high = halves.coarse + quad / 4 * 64;
        for (int i = 0; i < 64; ++i)
            block[quad * 64 + i] = uint8_t((high[i] >> part & 3) << 2 | (low[i] >> up & 3));
    }
}

void product(const uint8_t* tile, int64_t blocks, int64_t quads, const int8_t* set, int32_t* sums) {
    for (int query = 0; query < kSet; ++query, set += 4)
        for (int64_t block = 0; block < blocks; ++block, sums += kLanes) {
            const uint8_t* codes = tile + block * block_bytes(quads);
            for (int lane = 0; lane < kLanes; ++lane) sums[lane] = 0;
            for (int64_t quad = 0; quad < quads; ++quad, codes += 64)
                for (int lane = 0; lane < kLanes; ++lane)
                    for (int p = 0; p < 4; ++p)
                        sums[lane] += codes[4 * lane + p] * set[quad * kSet * 4 + p];
        }
}

// Eight sums side by side, so that the compiler can keep them in registers of any width.
template <typename T, bool DISTANCE>
double score(const void* data, const double* query, int64_t dim) {
    const T* row = static_cast<const T*>(data);
    double sums[8] = {};
    int64_t i = 0;
    for (; i + 8 <= dim; i += 8)
        for (int j = 0; j < 8; ++j) {
            const double x = widen(row[i + j]), y = query[i + j];
            sums[j] += DISTANCE ? (x - y) * (x - y) : x * y;
        }
    double total = 0;
    for (; i < dim; ++i) {
        const double x = widen(row[i]), y = query[i];
        total += DISTANCE ? (x - y) * (x - y) : x * y;
    }
    for (double sum : sums) total += sum;
    return total;
}

}  // namespace

const Level kPlain = {
    {{nullptr, scan<1>}, {nullptr, scan<2>}, {nullptr, scan<4>}, {nullptr, scan<8>}},
    sift,
    refine,
    unpack,
    product,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
};

}  // namespace nestling
