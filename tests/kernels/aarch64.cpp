// Compares the kernels for NEON with the plain ones on random inputs, to the last bit; test_aarch64.py runs it.
#include "kernels.h"
#include "rows.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

extern "C" int32_t nestling_levels();

using namespace nestling;

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

std::mt19937_64 source(7);
int64_t compared = 0, differing = 0;

template <typename T> std::vector<T> whole_numbers(int64_t count, int least, int most) {
    std::uniform_int_distribution<int> draw(least, most);
    std::vector<T> values(static_cast<size_t>(count));
    for (auto& value : values) value = T(draw(source));
    return values;
}

template <typename T> std::vector<T> reals(int64_t count) {
    std::normal_distribution<double> draw;
    std::vector<T> values(static_cast<size_t>(count));
    for (auto& value : values) value = T(draw(source));
    return values;
}

template <typename T> void compare(const std::string& what, const std::vector<T>& ours, const std::vector<T>& theirs) {
    compared += int64_t(ours.size());
    if (ours.size() == theirs.size() && !std::memcmp(ours.data(), theirs.data(), ours.size() * sizeof(T))) return;
    ++differing;
    std::printf("%s differs\n", what.c_str());
}

// What survived, of one query, with room for it.
struct Survivors {
    std::vector<int32_t> rows, sums;
    std::vector<float> bounds;
    Found found;

    explicit Survivors(int64_t room)
        : rows(size_t(room)), sums(size_t(room)), bounds(size_t(room)),
          found{rows.data(), sums.data(), bounds.data(), 0, kLowest} {}
    Survivors(const Survivors&) = delete;  // what was found points into it
    Survivors(Survivors&&) = default;

    void compare(const std::string& what, const Survivors& other) const {
        ::compare<int64_t>(what + ": count", {found.count}, {other.found.count});
        ::compare<float>(what + ": skipped", {found.skipped}, {other.found.skipped});
        ::compare(what + ": rows", rows, other.rows);
        ::compare(what + ": sums", sums, other.sums);
        ::compare(what + ": bounds", bounds, other.bounds);
    }
};

// Numbers of rows, one of which is no number.
struct Ends {
    std::vector<float> scale, radius, bias;

    explicit Ends(int64_t rows) : scale(reals<float>(rows)), radius(reals<float>(rows)), bias(reals<float>(rows)) {
        radius[size_t(rows / 2)] = kNone;
    }
};

Probe some_probe(const int8_t* query, int64_t spread, float threshold, int32_t* saved_sums) {
    return {query, int32_t(spread / 3), {1.0f / float(spread), 0.25f, 0.5f}, threshold, saved_sums};
}

void scans(const Level& level, int bits_log2, int64_t blocks, int64_t lines, bool biased, bool largest) {
    const int bits = 1 << bits_log2;
    const int64_t first = blocks / 2, rows = blocks * kLanes, width = lines * 32 / bits;
    const auto codes = whole_numbers<uint8_t>(blocks * lines * 64, largest ? 255 : 0, 255);
    const auto queries = whole_numbers<int8_t>(width * kMostTogether, -127, largest ? -127 : 127);
    const Ends ends(rows);
    const float* bias = biased ? ends.bias.data() : nullptr;
    const Packed packed = {codes.data(), lines, ends.scale.data(), ends.radius.data(), bias};
    for (float threshold : {kLowest, 0.1f, -kLowest})
        for (int count = 1; count <= kMostTogether; ++count) {
            if (!level.scan[bits_log2][count]) continue;
            std::vector<Survivors> ours;
            ours.reserve(kMostTogether);
            std::vector<int32_t> our_sums(static_cast<size_t>(rows * count)), their_sums(our_sums);
            std::vector<Probe> probes;
            std::vector<Found> found;
            for (int i = 0; i < count; ++i) {
                probes.push_back(some_probe(&queries[size_t(i * width)], width << bits, threshold,
                                            i % 2 ? nullptr : &our_sums[size_t(i * rows)]));
                ours.emplace_back(rows);
                found.push_back(ours.back().found);
            }
            level.scan[bits_log2][count](packed, first, blocks, probes.data(), found.data());
            for (int i = 0; i < count; ++i) {
                ours[size_t(i)].found = found[size_t(i)];
                Probe probe = probes[size_t(i)];
                if (probe.saved_sums) probe.saved_sums = &their_sums[size_t(i * rows)];
                Survivors theirs(rows), filtered(rows);
                kPlain.scan[bits_log2][1](packed, first, blocks, &probe, &theirs.found);
                ours[size_t(i)].compare("scan", theirs);
                if (!probe.saved_sums) continue;
                level.filter(packed, first, blocks, probes[size_t(i)], &filtered.found);
                filtered.compare("filter", theirs);
            }
            compare("scan: saved_sums", our_sums, their_sums);
        }
}

void refinements(const Level& level, int64_t rows, int64_t stride, bool biased) {
    const auto codes = whole_numbers<uint8_t>(rows * stride, 0, 255);
    const auto query = whole_numbers<int8_t>(4 * stride, -127, 127);
    const auto sums = whole_numbers<int32_t>(rows, -9999, 9999);
    const Ends ends(rows);
    const float* bias = biased ? ends.bias.data() : nullptr;
    const Fine fine = {codes.data(), stride, ends.scale.data(), ends.radius.data(), bias};
    for (float threshold : {kLowest, 0.1f, -kLowest}) {
        Survivors ours(rows), theirs(rows);
        for (Survivors* each : {&ours, &theirs}) {
            each->found.count = (rows + 1) / 2;
            for (int64_t i = 0; i < each->found.count; ++i) each->rows[size_t(i)] = int32_t(2 * i);
            each->sums = sums;
            each->found.sums = each->sums.data();
        }
        const Probe probe = some_probe(query.data(), 64 * stride, threshold, nullptr);
        level.refine(fine, probe, &ours.found);
        kPlain.refine(fine, probe, &theirs.found);
        ours.compare("refine", theirs);
    }
}

void products(const Level& level, int64_t blocks, int64_t lines, int64_t rows, bool largest) {
    const int64_t quads = 4 * lines;
    const auto coarse = whole_numbers<uint8_t>(64 * lines, 0, 255), fine = whole_numbers<uint8_t>(64 * lines, 0, 255);
    std::vector<uint8_t> ours(static_cast<size_t>(block_bytes(quads))), theirs(ours);
    level.unpack({coarse.data(), fine.data(), lines, rows}, ours.data());
    kPlain.unpack({coarse.data(), fine.data(), lines, rows}, theirs.data());
    compare("unpack", ours, theirs);
    const auto tile = whole_numbers<uint8_t>(blocks * block_bytes(quads), largest ? 15 : 0, 15);
    const auto set = whole_numbers<int8_t>(quads * 4 * kSet, -127, largest ? -127 : 127);
    std::vector<int32_t> our_sums(static_cast<size_t>(kSet * blocks * kLanes)), their_sums(our_sums);
    level.product(tile.data(), blocks, quads, set.data(), our_sums.data());
    kPlain.product(tile.data(), blocks, quads, set.data(), their_sums.data());
    compare("product", our_sums, their_sums);
}

template <typename T> void scores(const Level& level, Type type, const std::vector<T>& row) {
    const auto query = reals<double>(int64_t(row.size()));
    const int64_t dim = int64_t(row.size());
    compare<double>("dot", {level.dot[type](row.data(), query.data(), dim)},
                    {kPlain.dot[type](row.data(), query.data(), dim)});
    compare<double>("distance", {level.distance[type](row.data(), query.data(), dim)},
                    {kPlain.distance[type](row.data(), query.data(), dim)});
}

// All that are finite, denormal ones and both zeros among them, eight at a time.
void every_half(const Level& level) {
    std::vector<uint16_t> halves;
    for (uint32_t bits = 0; bits < 1 << 16; ++bits)
        if ((bits & 0x7fff) < 0x7c00) halves.push_back(uint16_t(bits));
    for (size_t i = 0; i < halves.size(); i += 8)
        scores<uint16_t>(level, kFloat16, {halves.begin() + int64_t(i), halves.begin() + int64_t(i) + 8});
}

void graph_sums(int32_t number, int64_t rows, int64_t stride, int64_t entries) {
    const Level &ours = level_of(number), &theirs = level_of(kPlainNumber);
    auto codes = whole_numbers<uint8_t>(rows * stride, 0, 255);
    const auto factors = reals<float>(2 * rows);
    for (int64_t row = 0; row < rows; ++row)
        std::memcpy(&codes[size_t((row + 1) * stride - 8)], &factors[size_t(2 * row)], 8);
    const auto query = whole_numbers<int8_t>(4 * stride, -127, 127);
    const auto places = whole_numbers<int32_t>(rows, 0, int(rows - 1));
    for (int32_t biased : {0, 1})
        for (float threshold : {kLowest, 0.5f})
            for (const int32_t* some : {places.data(), static_cast<const int32_t*>(nullptr)}) {
                std::vector<float> values[2];
                std::vector<int32_t> found[2];
                for (int side = 0; side < 2; ++side) {
                    values[side].resize(size_t(rows + 4)), found[side].resize(size_t(rows + 4));
                    const Estimates out = {values[side].data(), found[side].data()};
                    const int64_t kept = (side ? theirs : ours)
                                             .estimates({codes.data(), stride, biased}, {query.data(), 77, 1e-3f, 0.5f}, some,
                                                        rows, threshold, out);
                    values[side].resize(size_t(kept)), found[side].resize(size_t(kept));
                }
                compare("estimates", values[0], values[1]);
                compare("estimates: places", found[0], found[1]);
            }
    const auto a = whole_numbers<int8_t>(stride, -128, 127), b = whole_numbers<int8_t>(rows * stride, -128, 127);
    std::vector<int32_t> our_products(static_cast<size_t>(rows)), their_products(our_products);
    ours.products(a.data(), b.data(), stride, places.data(), rows, our_products.data());
    theirs.products(a.data(), b.data(), stride, places.data(), rows, their_products.data());
    compare("products", our_products, their_products);
    const auto vector = reals<float>(entries), matrix = reals<float>(entries * stride);
    std::vector<float> our_rotation(static_cast<size_t>(stride)), their_rotation(our_rotation);
    ours.rotate(vector.data(), entries, matrix.data(), stride, our_rotation.data());
    theirs.rotate(vector.data(), entries, matrix.data(), stride, their_rotation.data());
    compare("rotate", our_rotation, their_rotation);
}

}  // namespace

int main() {
    const int32_t number = kNeonNumber;
    std::printf("levels %d\n", nestling_levels());
    if (!(nestling_levels() >> number & 1)) return 0;
    const Level& level = level_of(number);
    for (int bits_log2 = 0; bits_log2 < 4; ++bits_log2)
        for (int64_t blocks : {1, 2, 19})
            for (int64_t lines : {1, 3, 16}) {
                scans(level, bits_log2, blocks, lines, blocks % 2, false);
                scans(level, bits_log2, blocks, lines, lines % 2, true);
            }
    for (int64_t stride : {4, 12, 16, 36, 64, 260})
        for (int64_t rows : {1, 2, 40, 333}) refinements(level, rows, stride, rows % 2);
    for (int64_t lines : {1, 2, 5, 48})
        for (int64_t blocks : {kWide, 4 * kWide}) products(level, blocks, lines, lines + blocks / 2, lines == 48);
    for (int64_t dim : {1, 7, 8, 31, 33, 256, 771}) {
        scores(level, kFloat32, reals<float>(dim));
        scores(level, kInt8, whole_numbers<int8_t>(dim, -128, 127));
        scores(level, kFloat16, whole_numbers<uint16_t>(dim, 0, 0x7bff));
    }
    every_half(level);
    for (int64_t stride : {64, 128, 320})
        for (int64_t rows : {1, 5, 64, 301}) graph_sums(number, rows, stride, rows % 64 + 1);
    std::printf("compared %lld, differing %lld\n", static_cast<long long>(compared), static_cast<long long>(differing));
    return differing != 0;
}
