// The kernels in portable C++, which compilers turn into the instructions that all machines have.
#include "kernels.h"

#define TARGET

namespace nestling {
namespace {

constexpr int kWidth = kLanes, kRegisters = 1, kSums = 8, kStep = 8;

template <typename T> struct Lanes {
    T each[kLanes];
};
using Ints = Lanes<int32_t>;
using Floats = Lanes<float>;
using Doubles = double;
using Codes = const uint8_t*;
using Four = const int8_t*;

template <typename Of> inline auto in_lanes(Of of) {
    Lanes<decltype(of(0))> made;
    for (int lane = 0; lane < kLanes; ++lane) made.each[lane] = of(lane);
    return made;
}
inline Ints load(const int32_t* from) { return in_lanes([=](int lane) { return from[lane]; }); }
inline Floats load(const float* from) { return in_lanes([=](int lane) { return from[lane]; }); }
inline double load(const double* from) { return *from; }
inline void store(int32_t* to, const Ints& values) { std::memcpy(to, values.each, sizeof values.each); }
inline Floats all(float value) { return in_lanes([=](int) { return value; }); }
inline Floats operator+(const Floats& a, const Floats& b) {
    return in_lanes([&](int i) { return a.each[i] + b.each[i]; });
}
inline Floats operator*(const Floats& a, const Floats& b) {
    return in_lanes([&](int i) { return a.each[i] * b.each[i]; });
}
inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) { return a * b + c; }
inline double multiply_add(double a, double b, double c) { return a * b + c; }
inline Codes load_codes(const uint8_t* line) { return line; }
inline Four broadcast(const int8_t* query) { return query; }
template <int BITS> inline Codes part_of(Codes whole, int) { return whole; }
template <int BITS> inline int32_t first_sum(const int8_t*, int64_t) { return 0; }

template <int BITS> struct Sums {
    Ints sums;

    void start(int32_t begin) {
        for (int32_t& sum : sums.each) sum = begin;
    }
    void add(int part, Codes codes, Four query) {
        for (int row = 0; row < kLanes; ++row) {
            int32_t sum = 0;
            for (int p = 0; p < 4; ++p) sum += ((codes[4 * row + p] >> (part * BITS)) & ((1 << BITS) - 1)) * query[p];
            sums.each[row] += sum;
        }
    }
    Ints total() const { return sums; }
};

inline Floats steps_of(const Ints& sums, int32_t offset) {
    return in_lanes([&](int lane) { return float(2 * sums.each[lane] - offset); });
}

inline void sort_out(int64_t row, const Ints& sums, const Floats& bounds, float threshold, Found& found) {
    sort_out_each(row, sums.each, bounds.each, kLanes, threshold, found);
}

inline int32_t sum_of(const uint8_t* code, int64_t stride, const int8_t* query) {
    return sum_from(0, code, stride, query);
}

inline int32_t product_of(const int8_t* a, const int8_t* b, int64_t dim) {
    int32_t sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += int32_t(a[i]) * b[i];
    return sum;
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

// Eight sums side by side, so that the compiler can keep them in registers of any width. Entries are widened
// where they are used, in the same loop.
template <typename T> struct Entries {
    const T* row;
    double operator[](int j) const { return widen(row[j]); }
};
template <typename T> inline void load_entries(const T* row, Entries<T>& entries) { entries.row = row; }

template <typename T, bool DISTANCE>
double finish(const double* sums, const T* row, const double* query, int64_t count) {
    double total = score_each<T, DISTANCE>(0, row, query, count);
    for (int j = 0; j < kSums; ++j) total += sums[j];
    return total;
}

#include "level.inl"
#include "level_by_rows.inl"
#include "planes.inl"

}  // namespace

const Level kPlain = {
    {{nullptr, scan<1, 1>}, {nullptr, scan<2, 1>}, {nullptr, scan<4, 1>}, {nullptr, scan<8, 1>}},
    filter,
    refine,
    unpack,
    product,
    nullptr,
    {score<float, false>, score<uint16_t, false>, score<int8_t, false>},
    {score<float, true>, score<uint16_t, true>, score<int8_t, true>},
    estimates,
    products,
    rotate,
    encode,
    decode,
    pack_planes,
    unpack_planes,
    gather,
    level_codes,
    spread,
    near,
    hamming,
};

}  // namespace nestling
