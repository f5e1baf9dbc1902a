// What levels do row by row, unless several rows at a time are faster. It is included behind level.inl and
//
//   sum_of, product_of        <query, 2-bit code> and <a, b> of one row

TARGET inline void filter(const Packed& codes, int64_t first, int64_t last, const Probe& probe, Found* found) {
    for (int64_t row = first * kLanes; row < last * kLanes; row += kWidth)
        keep(codes, row, load(probe.saved_sums + row - first * kLanes), probe, *found);
}

TARGET inline void refine(const Fine& fine, const Probe& probe, Found* found) {
    const Packed all_bits = {nullptr, 0, fine.scale, fine.radius, fine.bias};
    const int64_t count = found->count;
    found->count = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t ahead = i + kFetchAhead < count ? i + kFetchAhead : count - 1;
        __builtin_prefetch(fine.codes + found->rows[ahead] * fine.stride);
        const int32_t row = found->rows[i];
        const int32_t sum = 4 * found->sums[i] + sum_of(fine.codes + row * fine.stride, fine.stride, probe.query);
        const float bound = bound_of(all_bits, row, sum, probe.offset, probe.factors);
        sort_out_each(row, &sum, &bound, 1, probe.threshold, *found);
    }
}

// The low bits lie row by row; they are transposed, so that four bytes of 16 rows lie together.
TARGET inline void transpose_low_bits(const Halves& halves, uint8_t* block) {
    for (int64_t row = 0; row < kLanes; ++row) {
        const uint8_t* fine = halves.fine + (row < halves.rows ? row : 0) * 4 * halves.lines;
        for (int64_t i = 0; i < halves.lines; ++i) __builtin_memcpy(block + 64 * i + 4 * row, fine + 4 * i, 4);
    }
}

TARGET inline void unpack(const Halves& halves, uint8_t* block) {
    transpose_low_bits(halves, block);
    for (int64_t quad = 4 * halves.lines - 1; quad >= 0; --quad) {  // falling, as the low bits lie in front
        const int part = int(2 * (quad % 4)), up = int(2 * (quad / halves.lines));
        const uint8_t *low = block + quad % halves.lines * 64, *high = halves.coarse + quad / 4 * 64;
        for (int i = 0; i < 64; ++i)
            block[quad * 64 + i] = uint8_t((high[i] >> part & 3) << 2 | (low[i] >> up & 3));
    }
}

TARGET inline int64_t estimates(const CodedRows& coded, const EncodedQuery& encoded, const int32_t* rows, int64_t count,
                                float threshold, const Estimates& out) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* code = code_of(coded, rows, i);
        const float value = estimate(coded, encoded, code, sum_of(code, coded.stride, encoded.query));
        out.values[kept] = value;
        out.places[kept] = int32_t(i);
        kept += !(value < threshold);
    }
    return kept;
}

TARGET inline void products(const int8_t* a, const int8_t* values, int64_t dim, const int32_t* rows, int64_t count,
                            int32_t* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = product_of(a, values + rows[i] * dim, dim);
}

// Columns are summed side by side in registers, whatever their width, and rounded one by one in one order.
TARGET inline void rotate(const float* vector, int64_t entries, const float* matrix, int64_t width, float* out) {
    for (int64_t first = 0; first < width; first += 64) {
        float sums[64] = {};
        const float* row = matrix + first;
        for (int64_t i = 0; i < entries; ++i, row += width)
            for (int j = 0; j < 64; ++j) sums[j] += vector[i] * row[j];
        __builtin_memcpy(out + first, sums, sizeof sums);
    }
}
