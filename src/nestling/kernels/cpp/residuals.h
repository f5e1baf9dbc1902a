// Scores of rows by their 2-bit codes and 8-bit codes of what those leave out.
#pragma once
#include "query_encoder.h"
#include "beam_search.h"

// Filled in by Python; the fields and their order are those of nestling/kernels/graph/native.py.
struct NestlingResiduals {
    const int8_t* values;  // [rows, columns of the encoder]
    const float* steps;    // per row
};

namespace nestling {

class ResidualScore {
public:
    ResidualScore(const Level& level, const NestlingGraph& graph, const NestlingQueryEncoder& encoder,
                  const NestlingResiduals& residuals, QueryEncoder& own, const double* query)
        : level_(level), graph_(graph), encoder_(encoder), residuals_(residuals), rotated_(own.rotated()),
          levels_(size_t(encoder.width), 0) {
        double along = 0, square = 0;
        const double* centred = encoder.biased ? own.centred(encoder, query) : query;
        for (int64_t i = 0; i < encoder.dim; ++i)
            along += query[i] * encoder.mean[i], square += centred[i] * centred[i];
        weight_ = encoder.biased ? own.weight() : 0;
        if (encoder.biased && !encoder.products) {
            gain_ = 2 / (encoder.scale * encoder.scale), base_ = -square / (encoder.scale * encoder.scale);
        } else {
            const double unit = encoder.cosine ? length_of(query, encoder.dim) : encoder.scale;
            gain_ = 1 / unit, base_ = along / unit;
            if (encoder.products) gain_ = 1 / ((encoder.cosine ? 1 : encoder.scale) * own.factor());
        }
    }

    void fetch(int64_t row) const {
        const int8_t* values = residuals_.values + row * encoder_.columns;
        for (int64_t i = 0; i < encoder_.columns; i += 64) __builtin_prefetch(values + i);
        __builtin_prefetch(residuals_.steps + row);
    }

    double operator()(int64_t row) {
        const int64_t stride = graph_.stride, ends = encoder_.biased ? 8 : 4;
        const uint8_t* code = graph_.codes + row * stride;
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < stride - ends; ++i)
                levels_[size_t(part * stride + i)] = int8_t(2 * (code[i] >> 2 * part & 3) - 3);
        const double coded = level_.dot[kInt8](levels_.data(), rotated_, encoder_.width);
        const double rest = level_.dot[kInt8](residuals_.values + row * encoder_.columns, rotated_, encoder_.columns);
        const double bias = encoder_.biased ? weight_ * number_of(code, stride - 8) : 0;
        const double product = number_of(code, stride - 4) * coded + residuals_.steps[row] * rest;
        return (product + bias) * gain_ + base_;
    }

private:
    const Level& level_;
    const NestlingGraph& graph_;
    const NestlingQueryEncoder& encoder_;
    const NestlingResiduals& residuals_;
    const double* rotated_;
    std::vector<int8_t> levels_;  // zero where codes have numbers
    double gain_, base_, weight_;
};

}  // namespace nestling
