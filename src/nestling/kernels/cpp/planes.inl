// Codes, bit planes and their comparison: one text that every level compiles with its own instructions.

TARGET inline void encode(const Cells& cells, const float* row, uint8_t* codes) {
    constexpr int64_t kTogether = 64;
    const float half = cells.half, last = cells.last, shrink = cells.shrink, parts = cells.parts;
    for (int64_t first = 0; first < cells.dim; first += kTogether) {
        const int64_t count = cells.dim - first < kTogether ? cells.dim - first : kTogether;
        const float *x = row + first, *centre = cells.centre + first, *inverse = cells.inverse + first;
        int32_t numbers[kTogether];
        for (int64_t i = 0; i < count; ++i) {
            const float place = (x[i] - centre[i]) * inverse[i] + half;
            const float low = 1.0f - (1.0f - place) * shrink, high = last + (place - last) * shrink;
            const float bent = place > last ? high : place, within = (place < 1.0f ? low : bent) * parts;
            const float kept = within > 0.0f ? within : 0.0f;
            numbers[i] = int32_t(kept < 255.0f ? kept : 255.0f);
        }
        for (int64_t i = 0; i < count; ++i) codes[first + i] = uint8_t(numbers[i]);
    }
}

TARGET inline void decode(const CellValues& cells, const uint8_t* codes, float* entries) {
    const float *values = cells.values, *spread = cells.spread, *centre = cells.centre;
    for (int64_t i = 0; i < cells.dim; ++i) {
        const int32_t cell = codes[i] >> cells.shift;
        entries[i] = values[cell] * spread[i] + centre[i];
    }
}

// Bytes that hold the eight bits of one code become bytes that hold one bit of eight codes, or back: the last byte
// of a word is that of the first code and of the first plane.
TARGET inline void transpose_groups(uint64_t* words, int64_t count) {
    for (int64_t i = 0; i < count; ++i) words[i] = transposed(__builtin_bswap64(words[i]));
}

TARGET inline void pack_planes(const uint8_t* codes, int64_t dim, int64_t count, uint8_t* const* planes) {
    const int64_t bytes = (dim + 7) / 8;
    uint64_t words[kGroupsTogether];
    for (int64_t first = 0; first < bytes; first += kGroupsTogether) {
        const int64_t some = bytes - first < kGroupsTogether ? bytes - first : kGroupsTogether;
        const int64_t whole = (dim - 8 * first) / 8 < some ? (dim - 8 * first) / 8 : some;
        std::memcpy(words, codes + 8 * first, size_t(8 * whole));
        if (whole < some) words[whole] = word_at(codes + 8 * (first + whole), dim % 8);
        transpose_groups(words, some);
        for (int64_t plane = 0; plane < count; ++plane)
            for (int64_t i = 0; i < some; ++i) planes[plane][first + i] = uint8_t(words[i] >> (56 - 8 * plane));
    }
}

TARGET inline void unpack_planes(const uint8_t* const* planes, int64_t count, int64_t dim, uint8_t* codes) {
    const int64_t bytes = (dim + 7) / 8;
    uint64_t words[kGroupsTogether];
    for (int64_t first = 0; first < bytes; first += kGroupsTogether) {
        const int64_t some = bytes - first < kGroupsTogether ? bytes - first : kGroupsTogether;
        for (int64_t i = 0; i < some; ++i) words[i] = 0;
        for (int64_t plane = 0; plane < count; ++plane)
            for (int64_t i = 0; i < some; ++i) words[i] |= uint64_t(planes[plane][first + i]) << (56 - 8 * plane);
        for (int64_t i = 0; i < some; ++i) words[i] = __builtin_bswap64(transposed(words[i]));
        const int64_t entries = dim - 8 * first < 8 * some ? dim - 8 * first : 8 * some;
        std::memcpy(codes + 8 * first, words, size_t(entries));
    }
}

// A line of 64 bytes has four bytes of 16 rows. Two lines of fields of `WIDTH` bits become two of twice as many:
// the fields in the upper halves of both, and those in the lower halves.
template <int WIDTH> TARGET inline void join_lines(const uint8_t* high, const uint8_t* low, uint8_t* out) {
    constexpr uint64_t kUpper = WIDTH == 1 ? 0xAAAAAAAAAAAAAAAAull : WIDTH == 2 ? 0xCCCCCCCCCCCCCCCCull
                                                                                 : 0xF0F0F0F0F0F0F0F0ull;
    uint64_t a[8], b[8], upper[8], lower[8];
    std::memcpy(a, high, 64);
    std::memcpy(b, low, 64);
    for (int i = 0; i < 8; ++i) upper[i] = (a[i] & kUpper) | ((b[i] >> WIDTH) & ~kUpper);
    for (int i = 0; i < 8; ++i) lower[i] = ((a[i] << WIDTH) & kUpper) | (b[i] & ~kUpper);
    std::memcpy(out, upper, 64);
    std::memcpy(out + 64, lower, 64);
}

// Lines of 2, 4 or 8 planes, `apart` bytes from plane to plane, joined to as many lines of codes.
template <int WIDTH> TARGET inline void join_planes(const uint8_t* lines, int64_t apart, int64_t count, uint8_t* out) {
    uint8_t joined[64 * kMostPlanes];
    uint8_t* to = 2 * WIDTH == count ? out : joined;
    for (int64_t pair = 0; pair < count; pair += 2 * WIDTH)
        for (int64_t i = 0; i < WIDTH; ++i)
            join_lines<WIDTH>(lines + apart * (pair + i), lines + apart * (pair + WIDTH + i), to + 64 * (pair + 2 * i));
    if constexpr (WIDTH < 4)
        if (to == joined) join_planes<2 * WIDTH>(joined, 64, count, out);
}

// Four bytes of 16 rows side by side, of 32 bytes of each.
TARGET inline void transpose_rows(const uint8_t* plane, int64_t stride, int64_t bytes, int64_t rows, uint8_t* lines) {
    uint32_t held[kLanes][kRowBytes / 4];
    for (int64_t row = 0; row < kLanes; ++row) {
        const uint8_t* from = plane + (row < rows ? row : 0) * stride;
        __builtin_prefetch(from + kBytesAhead);
        if (bytes >= kRowBytes) {
            std::memcpy(held[row], from, kRowBytes);
        } else {
            std::memset(held[row], 0, kRowBytes);
            std::memcpy(held[row], from, size_t(bytes));
        }
    }
    for (int64_t line = 0; line < kRowBytes / 4; ++line) {
        uint32_t four[kLanes];
        for (int64_t row = 0; row < kLanes; ++row) four[row] = held[row][line];
        std::memcpy(lines + 64 * line, four, 64);
    }
}

TARGET inline void gather(const PlaneRows& rows, uint8_t* block) {
    constexpr int64_t kLines = kRowBytes / 4, kApart = 64 * kLines;
    uint8_t lines[kApart * kMostPlanes];
    for (int64_t at = 0; at < rows.bytes; at += kRowBytes) {
        for (int64_t plane = 0; plane < rows.count; ++plane) {
            if (rows.planes[plane])
                transpose_rows(rows.planes[plane] + at, rows.stride, rows.bytes - at, rows.rows, lines + kApart * plane);
            else std::memset(lines + kApart * plane, 0, kApart);
        }
        const int64_t last = (rows.bytes - at + 3) / 4 < kLines ? (rows.bytes - at + 3) / 4 : kLines;
        for (int64_t line = 0; line < last; ++line, block += 64 * rows.count) {
            if (rows.count == 1) std::memcpy(block, lines + 64 * line, 64);
            else join_planes<1>(lines + 64 * line, kApart, rows.count, block);
        }
    }
}

TARGET inline void level_codes(const EvenLevels& levels, int64_t count, uint8_t* codes) {
    const uint16_t slope = levels.slope, offset = levels.offset, tail = levels.tail;
    const uint16_t first = levels.first, beyond = uint16_t(levels.last - 1);
    for (int64_t i = 0; i < count; ++i) {
        const uint16_t code = codes[i];
        const uint16_t high = code > beyond ? uint16_t(2 * (code - beyond) - 1) : uint16_t(0);
        const uint16_t low = code < first ? uint16_t(2 * (first - code) - 1) : uint16_t(0);
        codes[i] = uint8_t(uint16_t(slope * code + offset + tail * high - tail * low) >> 8);
    }
}

TARGET inline int64_t spread(const uint8_t* levels, int64_t count, int32_t most) {
    int64_t sum = 0;
    for (int64_t first = 0; first < count; first += 4096) {  // whose sum fits 32 bits
        int32_t some = 0;
        for (int64_t i = first; i < (first + 4096 < count ? first + 4096 : count); ++i) {
            const int32_t apart = 2 * int32_t(levels[i]) - most;
            some += apart * apart;
        }
        sum += some;
    }
    return sum;
}

TARGET inline void near(const Grid& grid, const uint8_t* levels, double scale, double* entries) {
    for (int64_t i = 0; i < grid.dim; ++i)
        entries[i] = (grid.centre[i] + grid.unit[i] * double(levels[i])) * scale;
}

template <int WORDS>
TARGET inline void count_words(const BitRows& rows, int64_t count, const uint8_t* query, uint32_t* distances) {
    const int64_t whole = WORDS ? WORDS : (rows.bytes - 1) / 8, rest = rows.bytes - 8 * whole;
    const uint64_t mask = rest ? (uint64_t(rows.mask) << 8 * (rest - 1)) | ((uint64_t(1) << 8 * (rest - 1)) - 1) : 0;
    const uint64_t end = rest ? word_at(query + 8 * whole, rest) : 0;
    for (int64_t row = 0; row < count; ++row) {
        const uint8_t* bits = rows.rows + row * rows.stride;
        uint32_t differing = 0;
        for (int64_t i = 0; i < whole; ++i)
            differing += uint32_t(__builtin_popcountll(word_at(bits + 8 * i, 8) ^ word_at(query + 8 * i, 8)));
        if (rest) differing += uint32_t(__builtin_popcountll((word_at(bits + 8 * whole, rest) ^ end) & mask));
        distances[row] = differing;
    }
}

TARGET inline void hamming(const BitRows& rows, int64_t count, const uint8_t* query, uint32_t* distances) {
    const bool whole = rows.mask == 0xFF;
    if (whole && rows.bytes == 16) return count_words<2>(rows, count, query, distances);
    if (whole && rows.bytes == 32) return count_words<4>(rows, count, query, distances);
    if (whole && rows.bytes == 48) return count_words<6>(rows, count, query, distances);
    if (whole && rows.bytes == 96) return count_words<12>(rows, count, query, distances);
    return count_words<0>(rows, count, query, distances);
}
