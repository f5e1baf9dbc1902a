// What bounds on the scores of rows need, at many prefixes at once.
#include "held_rows.h"

#include <new>

using namespace nestling;

namespace {

constexpr int64_t kOutOfMemory = -1;
constexpr double kSlack = 1e-6;  // more than what float32 rounds off, relative to the length of a row

// Fills in what bounds need of rows.
class Measuring {
public:
    Measuring(const Level& level, const NestlingHeld& held, const double* centre, const double* unit, int32_t most)
        : level_(level), held_(held), grid_{centre, unit, held.dims[held.sizes - 1]}, most_(most),
          values_(level, held), levels_(size_t(grid_.dim)), near_(size_t(grid_.dim)) {}

    // The largest sums of (2 level - most) squared are raised, by size; the shortest and the longest row at any
    // size and precision are widened.
    void measure(int64_t row, int64_t* reach, double* extremes) {
        std::copy_n(held_.codes + row * held_.stride, grid_.dim, levels_.data());
        level_.level_codes(*held_.levels, grid_.dim, levels_.data());
        int64_t spread = 0, start = 0;
        for (int64_t size = 0; size < held_.sizes; start = held_.dims[size++]) {
            spread += level_.spread(levels_.data() + start, held_.dims[size] - start, most_);
            reach[size] = std::max(reach[size], spread);
        }
        for (int64_t kind = 0; kind < held_.kinds; ++kind) measure(kind, row, extremes);
    }

private:
    void measure(int64_t kind, int64_t row, double* extremes) {
        const float* values = values_.of(kind, row, grid_.dim);
        const int64_t whole = held_.values[kind].whole;
        const double scale = whole ? std::sqrt(values_.square(values, whole)) : 1;
        if (held_.doubts) level_.near(grid_, levels_.data(), scale, near_.data());
        double square = 0, residual = 0;
        int64_t start = 0;
        for (int64_t size = 0; size < held_.sizes; start = held_.dims[size++]) {
            const int64_t count = held_.dims[size] - start, at = (kind * held_.sizes + size) * held_.padded + row;
            square += values_.square(values + start, count);
            const double length = std::sqrt(square);
            held_.lengths[at] = held_.is_cosine ? float(length / scale) : 1;
            extremes[0] = std::min(extremes[0], length), extremes[1] = std::max(extremes[1], length);
            if (!held_.doubts) continue;
            residual += level_.distance[kFloat32](values + start, near_.data() + start, count);
            held_.doubts[at] = float(((1 + kSlack) * std::sqrt(residual) + kSlack * length) / scale);
        }
    }

    const Level& level_;
    const NestlingHeld& held_;
    const Grid grid_;
    const int32_t most_;
    Values values_;
    std::vector<uint8_t> levels_;
    std::vector<double> near_;
};

}  // namespace

// Lengths and doubts of the rows from `first` to `last`; for `reach` and `extremes` see Measuring.
EXPORT int64_t nestling_measure_held(int32_t number, const NestlingHeld* held, const double* centre,
                                     const double* unit, int64_t most, int64_t first, int64_t last, int64_t* reach,
                                     double* extremes) {
    try {
        Measuring measuring(level_of(number), *held, centre, unit, int32_t(most));
        for (int64_t row = first; row < last; ++row) measuring.measure(row, reach, extremes);
        return 0;
    } catch (const std::bad_alloc&) {
        return kOutOfMemory;
    }
}
