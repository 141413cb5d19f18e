// Causal depthwise convolution along time with SiLU, LANES channels at once; it stops at clips.
#pragma once
#include "tiles.h"

namespace {

const int WIDEST = 8;   // taps at most
const int STRETCH = 64;  // steps that are read at once

// Taps and bias of a block: `taps` rows of LANES floats.
struct Taps {
    float weight[WIDEST * LANES], bias[LANES];
};

static void load_taps(const ConvArguments &a, Taps &taps, Block block) {
    memset(&taps, 0, sizeof(taps));
    for (int c = 0; c < block.count; c++) {
        for (int64_t k = 0; k < a.width; k++)
            taps.weight[k * LANES + c] = a.weight[(block.first + c) * a.width + k];
        taps.bias[c] = a.bias[block.first + c];
    }
}

// Rows of a clip from `begin - margin` on; what lies outside of the clip is zero.
static void read_within(float *to, const View &view, Stretch clip, int64_t begin, int64_t steps,
                        Block block) {
    const int64_t before = begin < 0 ? -begin : 0;
    const int64_t end = begin + steps, after = end > clip.length ? end - clip.length : 0;
    memset(to, 0, before * LANES * sizeof(float));
    memset(to + (steps - after) * LANES, 0, after * LANES * sizeof(float));
    read_steps(to + before * LANES, view, clip.row, clip.first + begin + before,
               steps - before - after, block, 0);
}

// What goes into SiLU at step i of rows that begin width - 1 steps early (or at it, in reverse).
INLINE Lanes mixed(const ConvArguments &a, const Taps &taps, const float *x, int64_t i) {
    Lanes sum = load(taps.bias);
    for (int64_t k = 0; k < a.width; k++) {
        const int64_t at = a.reverse ? i + a.width - 1 - k : i + k;
        sum += load(taps.weight + k * LANES) * load(x + at * LANES);
    }
    return sum;
}

static void convolve_forward(const ConvArguments &a, Block block, int64_t from, int64_t to) {
    Taps taps;
    load_taps(a, taps, block);
    float x[(STRETCH + WIDEST) * LANES], y[STRETCH * LANES];
    const int64_t margin = a.width - 1;
    for (int64_t number = from; number < to; number++) {
        const Stretch clip = clip_at(a.clips, number);
        for (int64_t begin = 0; begin < clip.length; begin += STRETCH) {
            const int64_t left = clip.length - begin, steps = left < STRETCH ? left : STRETCH;
            read_within(x, a.x, clip, a.reverse ? begin : begin - margin, steps + margin, block);
            for (int64_t i = 0; i < steps; i++) {
                const Lanes sum = mixed(a, taps, x, i);
                store(y + i * LANES, silu_of(sum));
            }
            write_steps(y, a.y, clip.row, clip.first + begin, steps, block, 0);
        }
    }
}

// The gradient of what goes into SiLU is needed up to width - 1 steps beyond a stretch on the side
// that reads it, and the input as far again.
static void convolve_backward(const ConvArguments &a, float *dweight, float *dbias, Block block,
                              int64_t from, int64_t to) {
    Taps taps;
    load_taps(a, taps, block);
    float x[(STRETCH + 2 * WIDEST) * LANES], g[(STRETCH + WIDEST) * LANES], dx[STRETCH * LANES];
    const int64_t margin = a.width - 1;
    Lanes dtaps[WIDEST] = {}, dsum = {};
    for (int64_t number = from; number < to; number++) {
        const Stretch clip = clip_at(a.clips, number);
        for (int64_t begin = 0; begin < clip.length; begin += STRETCH) {
            const int64_t left = clip.length - begin, steps = left < STRETCH ? left : STRETCH;
            const int64_t early = a.reverse ? begin - margin : begin;
            read_within(g, a.y, clip, early, steps + margin, block);
            read_within(x, a.x, clip, begin - margin, steps + 2 * margin, block);
            for (int64_t i = 0; i < steps + margin; i++) {
                const Lanes sum = mixed(a, taps, x, i), open = sigmoid_of(sum);
                const Lanes slope = open * (1.0f + sum * (1.0f - open));
                store(g + i * LANES, load(g + i * LANES) * slope);
            }
            const int64_t own = a.reverse ? margin : 0;  // where the stretch itself begins in g
            for (int64_t i = 0; i < steps; i++) {
                Lanes sum = {};
                const Lanes here = load(g + (own + i) * LANES);
                dsum += here;
                for (int64_t k = 0; k < a.width; k++) {
                    const int64_t reader = a.reverse ? i + k : i + margin - k;
                    const int64_t read = a.reverse ? i + own + margin - k : i + k;
                    sum += load(taps.weight + k * LANES) * load(g + reader * LANES);
                    dtaps[k] += here * load(x + read * LANES);
                }
                store(dx + i * LANES, sum);
            }
            write_steps(dx, a.dx, clip.row, clip.first + begin, steps, block, 0);
        }
    }
    for (int c = 0; c < block.count; c++) {
        for (int64_t k = 0; k < a.width; k++)
            dweight[(block.first + c) * a.width + k] += dtaps[k][c];
        dbias[block.first + c] += dsum[c];
    }
}

}  // namespace
