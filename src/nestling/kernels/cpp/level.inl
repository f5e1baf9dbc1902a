// What every level does in the same way. A level includes this text once, behind what it does in its own way:
//
//   TARGET                    how its functions are compiled
//   Ints, Floats              32-bit numbers of kWidth rows; a scan takes kRegisters of them at a time
//   Codes, Four               four codes of each of kWidth rows; the four entries of a query that meet them
//   Doubles                   kStep numbers of a row fill kSums of them
//   load, store, all          between memory and registers; one number in all places
//   multiply_add              a * b + c, in one rounding or two
//   load_codes, part_of       a line of packed codes, and one of the parts of its bytes
//   Sums, first_sum           <query, code> of kWidth rows, and where it begins
//   steps_of, sort_out        2 * sum - offset as a float; which of kWidth rows survive
//   Entries, load_entries     kStep entries of a row in double precision, as kSums of Doubles
//   finish                    the total of the sums and of what is left at the end of a row
//
// Whole numbers are exact, so every level finds the same sums.

TARGET inline Floats bounds_of(const Packed& codes, int64_t row, Floats t, const Factors& factors) {
    Floats rest = load(codes.radius + row) * all(factors.gamma);
    if (codes.bias) rest = rest + load(codes.bias + row);
    const Floats steps = multiply_add(t, all(factors.alpha), all(factors.beta));
    return multiply_add(load(codes.scale + row), steps, rest);
}

TARGET inline void keep(const Packed& codes, int64_t row, Ints sums, const Probe& probe, Found& found) {
    const Floats bounds = bounds_of(codes, row, steps_of(sums, probe.offset), probe.factors);
    sort_out(row, sums, bounds, probe.threshold, found);
}

template <int BITS, int QUERIES>
TARGET void scan(const Packed& codes, int64_t first, int64_t last, const Probe* probes, Found* found) {
    constexpr int kParts = 8 / BITS, kRows = kWidth * kRegisters;
    int32_t begin[QUERIES];
    for (int query = 0; query < QUERIES; ++query) begin[query] = first_sum<BITS>(probes[query].query, codes.lines);
    for (int64_t row = first * kLanes; row < last * kLanes; row += kRows) {
        const uint8_t* line = codes.blocks + row / kLanes * codes.lines * 64 + row % kLanes * 4;
        Sums<BITS> sums[QUERIES][kRegisters];
        for (int query = 0; query < QUERIES; ++query)
            for (auto& sum : sums[query]) sum.start(begin[query]);
        for (int64_t i = 0; i < codes.lines; ++i, line += 64) {
            Codes whole[kRegisters];
            for (int each = 0; each < kRegisters; ++each) whole[each] = load_codes(line + 4 * kWidth * each);
#pragma GCC unroll 8
            for (int part = 0; part < kParts; ++part) {
                Four entries[QUERIES];
                for (int query = 0; query < QUERIES; ++query)
                    entries[query] = broadcast(probes[query].query + 4 * (i * kParts + part));
#pragma GCC unroll 4
                for (int each = 0; each < kRegisters; ++each) {
                    const Codes code = part_of<BITS>(whole[each], part);
#pragma GCC unroll 4
                    for (int query = 0; query < QUERIES; ++query) sums[query][each].add(part, code, entries[query]);
                }
            }
        }
        for (int query = 0; query < QUERIES; ++query)
            for (int each = 0; each < kRegisters; ++each) {
                const int64_t here = row + each * kWidth;
                const Ints sum = sums[query][each].total();
                if (probes[query].saved_sums) store(probes[query].saved_sums + here - first * kLanes, sum);
                keep(codes, here, sum, probes[query], found[query]);
            }
    }
}

template <typename T, bool DISTANCE>
TARGET double score(const void* data, const double* query, int64_t dim) {
    const T* row = static_cast<const T*>(data);
    Doubles sums[kSums] = {};
    int64_t i = 0;
    for (; i + kStep <= dim; i += kStep) {
        Entries<T> entries;
        load_entries(row + i, entries);
        for (int j = 0; j < kSums; ++j) {
            const Doubles y = load(query + i + j * (kStep / kSums)), apart = entries[j] - y;
            sums[j] = DISTANCE ? multiply_add(apart, apart, sums[j]) : multiply_add(entries[j], y, sums[j]);
        }
    }
    return finish<T, DISTANCE>(sums, row + i, query + i, dim - i);
}
