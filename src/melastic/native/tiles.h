// Stretches of a view, LANES channels wide, to and from contiguous rows of LANES floats.
#pragma once
#include "lanes.h"

namespace {

const int WIDE = 64;  // channels of a task at most: whole cache lines of a step are read together
const int SUBS = WIDE / LANES;

// Channels, and how many of them there are.
struct Block {
    int64_t first;
    int count;

    int subs() const { return (count + LANES - 1) / LANES; }
    // Those that share a vector.
    Block sub(int i) const {
        const int left = count - i * LANES;
        return {first + i * LANES, left < LANES ? left : LANES};
    }
};

template <int DTYPE>
INLINE void read_typed(float *to, const View &view, int64_t row, int64_t step, int64_t steps,
                       Block block) {
    const int64_t at = row * view.row + step * view.step + block.first * view.channel;
    if (view.channel == 1 && block.count == LANES) {
        for (int64_t i = 0; i < steps; i++)
            store(to + i * LANES, read_lanes<DTYPE>(view.data, at + i * view.step));
        return;
    }
    int64_t done = 0;
    if (view.step == 1 && block.count == LANES)
        for (; done + LANES <= steps; done += LANES) {
            Lanes rows[LANES];
            for (int c = 0; c < LANES; c++)
                rows[c] = read_lanes<DTYPE>(view.data, at + done + c * view.channel);
            transpose(rows);
            for (int i = 0; i < LANES; i++) store(to + (done + i) * LANES, rows[i]);
        }
    for (int64_t i = done; i < steps; i++)
        for (int c = 0; c < LANES; c++)
            to[i * LANES + c] =
                c < block.count
                    ? read_one<DTYPE>(view.data, at + i * view.step + c * view.channel)
                    : 0.0f;
}

template <int DTYPE>
INLINE void write_typed(const float *from, const View &view, int64_t row, int64_t step,
                        int64_t steps, Block block) {
    const int64_t at = row * view.row + step * view.step + block.first * view.channel;
    if (view.channel == 1 && block.count == LANES) {
        for (int64_t i = 0; i < steps; i++)
            write_lanes<DTYPE>(view.data, at + i * view.step, load(from + i * LANES));
        return;
    }
    int64_t done = 0;
    if (view.step == 1 && block.count == LANES)
        for (; done + LANES <= steps; done += LANES) {
            Lanes rows[LANES];
            for (int i = 0; i < LANES; i++) rows[i] = load(from + (done + i) * LANES);
            transpose(rows);
            for (int c = 0; c < LANES; c++)
                write_lanes<DTYPE>(view.data, at + done + c * view.channel, rows[c]);
        }
    for (int64_t i = done; i < steps; i++)
        for (int c = 0; c < block.count; c++)
            write_one<DTYPE>(view.data, at + i * view.step + c * view.channel,
                             from[i * LANES + c]);
}

// Steps of a view as rows of LANES floats, those of each vector of channels `apart` floats from those
// of the one before; channels beyond the last are zero.
template <int DTYPE>
INLINE void read_block(float *to, const View &view, int64_t row, int64_t step, int64_t steps,
                       Block block, int64_t apart) {
    if (view.channel != 1 || block.count % LANES) {
        for (int i = 0; i < block.subs(); i++)
            read_typed<DTYPE>(to + i * apart, view, row, step, steps, block.sub(i));
        return;
    }
    const int64_t at = row * view.row + step * view.step + block.first;
    for (int64_t k = 0; k < steps; k++)
        for (int i = 0; i < block.subs(); i++)
            store(to + i * apart + k * LANES,
                  read_lanes<DTYPE>(view.data, at + k * view.step + i * LANES));
}

template <int DTYPE>
INLINE void write_block(const float *from, const View &view, int64_t row, int64_t step,
                        int64_t steps, Block block, int64_t apart) {
    if (view.channel != 1 || block.count % LANES) {
        for (int i = 0; i < block.subs(); i++)
            write_typed<DTYPE>(from + i * apart, view, row, step, steps, block.sub(i));
        return;
    }
    const int64_t at = row * view.row + step * view.step + block.first;
    for (int64_t k = 0; k < steps; k++)
        for (int i = 0; i < block.subs(); i++)
            write_lanes<DTYPE>(view.data, at + k * view.step + i * LANES,
                               load(from + i * apart + k * LANES));
}

static void read_steps(float *to, const View &view, int64_t row, int64_t step, int64_t steps,
                       Block block, int64_t apart) {
    if (view.dtype == FLOAT32)
        return read_block<FLOAT32>(to, view, row, step, steps, block, apart);
    if (view.dtype == BFLOAT16)
        return read_block<BFLOAT16>(to, view, row, step, steps, block, apart);
    read_block<FLOAT16>(to, view, row, step, steps, block, apart);
}

static void write_steps(const float *from, const View &view, int64_t row, int64_t step,
                        int64_t steps, Block block, int64_t apart) {
    if (view.dtype == FLOAT32)
        return write_block<FLOAT32>(from, view, row, step, steps, block, apart);
    if (view.dtype == BFLOAT16)
        return write_block<BFLOAT16>(from, view, row, step, steps, block, apart);
    write_block<FLOAT16>(from, view, row, step, steps, block, apart);
}

// Rows of LANES floats: `step` floats from a step to the next, `sub` from a vector of channels to the
// next.
struct Places {
    float *at;
    int64_t step, sub;

    float *row(int i, int64_t k) const { return at + i * sub + k * step; }
};

INLINE bool lies_in_rows(const View &view, Block block) {
    return view.dtype == FLOAT32 && view.channel == 1 && block.count % LANES == 0;
}

INLINE Places in_place(const View &view, int64_t row, int64_t step, Block block) {
    return {(float *)view.data + row * view.row + step * view.step + block.first, view.step, LANES};
}

// Steps of a view, where they are if these are rows; else copied to `other`.
INLINE Places rows_read(Places other, const View &view, int64_t row, int64_t step, int64_t steps,
                        Block block) {
    if (lies_in_rows(view, block)) return in_place(view, row, step, block);
    read_steps(other.at, view, row, step, steps, block, other.sub);
    return other;
}

// Steps of a view "row step state" as rows of `padded` floats; what is beyond the last state is
// zero.
static void read_states(float *to, const View &view, int64_t row, int64_t step, int64_t steps,
                        int64_t state, int64_t padded) {
    const int64_t start = row * view.row + step * view.step;
    for (int64_t i = 0; i < steps; i++) {
        const int64_t at = start + i * view.step;
        float *line = to + i * padded;
        if (view.dtype == FLOAT32 && view.channel == 1)
            memcpy(line, (const float *)view.data + at, state * sizeof(float));
        else
            for (int64_t n = 0; n < state; n++) {
                const int64_t place = at + n * view.channel;
                line[n] = view.dtype == FLOAT32    ? read_one<FLOAT32>(view.data, place)
                          : view.dtype == BFLOAT16 ? read_one<BFLOAT16>(view.data, place)
                                                   : read_one<FLOAT16>(view.data, place);
            }
        for (int64_t n = state; n < padded; n++) line[n] = 0.0f;
    }
}

// A dim x state table, of which a vector's rows become `padded` rows of LANES floats.
static void read_table(float *to, const float *table, int64_t state, int64_t padded, Block sub) {
    const View view = {(void *)table, 0, 1, state, FLOAT32};
    read_typed<FLOAT32>(to, view, 0, 0, state, sub);
    memset(to + state * LANES, 0, (padded - state) * LANES * sizeof(float));
}

struct Stretch {
    int64_t row, first, length;
};

INLINE Stretch clip_at(const Clips &clips, int64_t clip) {
    if (!clips.bounds) return {clip, 0, clips.length};
    return {0, clips.bounds[clip], clips.bounds[clip + 1] - clips.bounds[clip]};
}

INLINE int64_t longest_clip(const Clips &clips) {
    int64_t longest = clips.bounds ? 0 : clips.length;
    for (int64_t i = 0; clips.bounds && i < clips.clips; i++) {
        const int64_t length = clips.bounds[i + 1] - clips.bounds[i];
        longest = length > longest ? length : longest;
    }
    return longest;
}

INLINE int64_t rounded_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace
