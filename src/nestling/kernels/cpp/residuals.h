// Scores of rows by their 2-bit codes and 8-bit codes of what those leave out.
#pragma once
#include "lens.h"
#include "walker.h"

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingResiduals {
    const int8_t* values;  // [rows, columns of the lens]
    const float* steps;    // per row
};

namespace nestling {

class ResidualScore {
public:
    ResidualScore(const Level& level, const NestlingGraph& graph, const NestlingLens& lens,
                  const NestlingResiduals& residuals, Lens& own, const double* query)
        : level_(level), graph_(graph), lens_(lens), residuals_(residuals), turned_(own.turned()),
          levels_(size_t(lens.width), 0) {
        double along = 0, square = 0;
        const double* moved = lens.biased ? own.moved(lens, query) : query;
        for (int64_t i = 0; i < lens.dim; ++i) along += query[i] * lens.mean[i], square += moved[i] * moved[i];
        weight_ = lens.biased ? own.weight() : 0;
        if (lens.biased && !lens.products) {
            gain_ = 2 / (lens.scale * lens.scale), base_ = -square / (lens.scale * lens.scale);
        } else {
            const double unit = lens.cosine ? length_of(query, lens.dim) : lens.scale;
            gain_ = 1 / unit, base_ = along / unit;
            if (lens.products) gain_ = 1 / ((lens.cosine ? 1 : lens.scale) * own.factor());
        }
    }

    void fetch(int64_t row) const {
        const int8_t* values = residuals_.values + row * lens_.columns;
        for (int64_t i = 0; i < lens_.columns; i += 64) __builtin_prefetch(values + i);
        __builtin_prefetch(residuals_.steps + row);
    }

    double operator()(int64_t row) {
        const int64_t stride = graph_.stride, ends = lens_.biased ? 8 : 4;
        const uint8_t* code = graph_.codes + row * stride;
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < stride - ends; ++i)
                levels_[size_t(part * stride + i)] = int8_t(2 * (code[i] >> 2 * part & 3) - 3);
        const double coded = level_.dot[kInt8](levels_.data(), turned_, lens_.width);
        const double rest = level_.dot[kInt8](residuals_.values + row * lens_.columns, turned_, lens_.columns);
        const double bias = lens_.biased ? weight_ * number_of(code, stride - 8) : 0;
        const double product = number_of(code, stride - 4) * coded + residuals_.steps[row] * rest;
        return (product + bias) * gain_ + base_;
    }

private:
    const Level& level_;
    const NestlingGraph& graph_;
    const NestlingLens& lens_;
    const NestlingResiduals& residuals_;
    const double* turned_;
    std::vector<int8_t> levels_;  // zero where codes have numbers
    double gain_, base_, weight_;
};

}  // namespace nestling
