// Gradients of the selective scan: states are computed again, from those at the chunks' beginnings.
#pragma once
#include "kernels.h"
#include "scan_forward.h"

namespace {

const int SPAN = CHUNK;  // steps of which states and decays are held at once  // steps of which states and decays are held at once

// A row has LANES floats. What is read and written of the clip is there for all vectors of channels,
// `kept` rows apart; the rest is of the vector that is worked on.
struct BackwardScratch {
    int64_t padded, kept;
    float *A, *A_back, *dA, *dA_back;        // rows: padded states, for each vector
    float *dt, *u, *dy, *y, *ddt, *ds;       // rows: steps of the longest clip, for each vector
    float *slope;                            // the same
    float *gate;                             // rows: steps of a chunk, for each vector
    float *g;                                // rows: padded states
    float *x;                                // rows: steps of a chunk
    float *starts;                           // rows: chunks x padded states
    float *states, *decays;                  // rows: (SPAN + 1) x MANY, SPAN x MANY
    float *B, *C;                            // SPAN x padded
};

static int64_t backward_layout(const ScanArguments &a, BackwardScratch *s, float *at) {
    BackwardScratch unused;
    if (!s) s = &unused;
    s->padded = rounded_up(a.state, FEW);
    s->kept = rounded_up(longest_clip(a.clips), SPAN);
    const int64_t table = SUBS * s->padded, steps = SUBS * s->kept, chunk = SUBS * SPAN;
    float **const arrays[] = {&s->A,  &s->A_back, &s->dA, &s->dA_back, &s->dt,     &s->u,
                              &s->dy, &s->y,      &s->ddt, &s->ds,     &s->slope,  &s->gate,
                              &s->g,  &s->x,      &s->starts, &s->states, &s->decays};
    const int64_t rows[] = {table, table, table, table, steps, steps, steps, steps, steps,
                            steps, steps, chunk, s->padded, SPAN, s->kept / SPAN * s->padded,
                            (SPAN + 1) * MANY, SPAN * MANY};
    const int64_t floats = place_rows(arrays, rows, 17, at);
    if (at) s->B = at + floats, s->C = at + floats + SPAN * s->padded;
    return floats + 2 * SPAN * s->padded;
}

static int64_t backward_floats(const ScanArguments &a) { return backward_layout(a, 0, 0); }

// Sums over the lanes of N vectors, each added to its own place.
template <int N>
INLINE void add_sums(float *to, Lanes *p, int64_t count) {
#pragma GCC unroll 4
    for (int half = N / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            p[i] = weave_low(p[i], p[i + half]) + weave_high(p[i], p[i + half]);
    float sums[LANES];
    if (N == LANES && count == LANES) return store(to, load(to) + p[0]);
    store(sums, p[0]);
    for (int n = 0; n < count; n++)
        for (int k = n; k < LANES; k += N) to[n] += sums[k];
}

// Advance N states through a chunk without reading them.
template <int N>
INLINE void pass_through(const float *A, float *h, const float *dt, const float *x, const float *B,
                         int64_t padded, int64_t steps, bool back) {
    Lanes state[N], decay[N];
    for (int n = 0; n < N; n++) state[n] = load(h + n * LANES), decay[n] = load(A + n * LANES);
    const int64_t turn = back ? -1 : 1;
    int64_t i = back ? steps - 1 : 0;
    for (int64_t k = 0; k < steps; k++, i += turn) {
        const Lanes d = load(dt + i * LANES), in = load(x + i * LANES);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++)
            state[n] = exp2_of(d * decay[n]) * state[n] + in * B[i * padded + n];
    }
    for (int n = 0; n < N; n++) store(h + n * LANES, state[n]);
}

// States and decays of a chunk, held; what is read off the states is added to y.
template <int N>
INLINE void recompute(const BackwardScratch &s, const float *A, const float *start,
                      const float *dt, const float *B, const float *C, int64_t padded, float *y,
                      int64_t steps, bool back) {
    Lanes state[N], decay[N];
    for (int n = 0; n < N; n++) {
        state[n] = load(start + n * LANES), decay[n] = load(A + n * LANES);
        store(s.states + n * LANES, state[n]);
    }
    const int64_t turn = back ? -1 : 1;
    int64_t i = back ? steps - 1 : 0;
    for (int64_t k = 0; k < steps; k++, i += turn) {
        const Lanes d = load(dt + i * LANES), in = load(s.x + i * LANES);
        const float *b = B + i * padded, *c = C + i * padded;
        float *held = s.states + (k + 1) * N * LANES, *decays = s.decays + k * N * LANES;
        Lanes out = load(y + i * LANES);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) {
            const Lanes e = exp2_of(d * decay[n]);
            state[n] = e * state[n] + in * b[n];
            out += state[n] * c[n];
            store(decays + n * LANES, e);
            store(held + n * LANES, state[n]);
        }
        store(y + i * LANES, out);
    }
}

// Where the sums over channels of a chunk go.
struct StateSums {
    float *dB, *dC;
    int64_t state, count;  // row length, states of these N that exist
};

// From the chunk's end to its beginning: gradients of N states, and what they pass on.
template <int N>
INLINE void turn_back(const BackwardScratch &s, const float *A, float *g, float *dA,
                      const float *dt, const float *dy, const float *B, const float *C,
                      int64_t padded, float *ddt, float *ds, StateSums sums, int64_t steps,
                      bool back) {
    Lanes flow[N], slope[N];
    for (int n = 0; n < N; n++) flow[n] = load(g + n * LANES), slope[n] = load(dA + n * LANES);
    const int64_t turn = back ? 1 : -1;
    int64_t i = back ? 0 : steps - 1;
    for (int64_t k = steps - 1; k >= 0; k--, i += turn) {
        const Lanes d = load(dt + i * LANES), in = load(s.x + i * LANES);
        const Lanes out = load(dy + i * LANES);
        const float *b = B + i * padded, *c = C + i * padded;
        const float *before = s.states + k * N * LANES, *after = before + N * LANES;
        const float *decays = s.decays + k * N * LANES;
        Lanes more = load(ddt + i * LANES), through = load(ds + i * LANES), dB[N], dC[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) {
            const Lanes full = flow[n] + out * c[n];
            dC[n] = out * load(after + n * LANES);
            dB[n] = full * in;
            through += full * b[n];
            flow[n] = full * load(decays + n * LANES);
            const Lanes rate = flow[n] * load(before + n * LANES);
            more += rate * load(A + n * LANES);
            slope[n] += rate * d;
        }
        store(ddt + i * LANES, more), store(ds + i * LANES, through);
        add_sums<N>(sums.dB + i * sums.state, dB, sums.count);
        add_sums<N>(sums.dC + i * sums.state, dC, sums.count);
    }
    for (int n = 0; n < N; n++) store(g + n * LANES, flow[n]), store(dA + n * LANES, slope[n]);
}

// Rows of the clip that belong to one vector of channels.
struct Rows {
    const float *dt, *u, *dy;
    float *y, *ddt, *ds;
};

template <int N>
INLINE void chunk_gradients(const BackwardScratch &s, const Rows &rows, const float *A,
                            const float *start, float *dA, int64_t n, int64_t begin,
                            StateSums sums, int64_t steps, bool back) {
    const int64_t at = begin * LANES, row = n * LANES;
    sums.dB += n, sums.dC += n;
    sums.count = sums.state - n < N ? sums.state - n : N;
    recompute<N>(s, A + row, start + row, rows.dt + at, s.B + n, s.C + n, s.padded, rows.y + at,
                 steps, back);
    turn_back<N>(s, A + row, s.g + row, dA + row, rows.dt + at, rows.dy + at, s.B + n, s.C + n,
                 s.padded, rows.ddt + at, rows.ds + at, sums, steps, back);
}

INLINE void load_chunk(const ScanArguments &a, const BackwardScratch &s, const Rows &rows,
                       Stretch clip, int64_t begin, int64_t steps, bool read) {
    const int64_t step = clip.first + begin;
    read_states(s.B, a.B, clip.row, step, steps, a.state, s.padded);
    if (read) read_states(s.C, a.C, clip.row, step, steps, a.state, s.padded);
    for (int64_t i = 0; i < steps; i++) {
        const int64_t at = (begin + i) * LANES;
        store(s.x + i * LANES, load(rows.dt + at) * load(rows.u + at));
    }
}

// Gradients of one way, added to what the step sizes, inputs, B, C and decays have so far.
static void backward_one_way(const ScanArguments &a, const ScanSums &sums,
                             const BackwardScratch &s, const Rows &rows, const float *A, float *dA,
                             Stretch clip, Block sub, int way, bool back) {
    const int64_t padded = s.padded, row = padded * LANES;
    const int64_t chunks = (clip.length + SPAN - 1) / SPAN;
    memset(s.g, 0, row * sizeof(float));
    memset(s.starts, 0, row * sizeof(float));
    for (int64_t k = 1; k < chunks; k++) {
        float *start = s.starts + k * row;
        if (a.starts) {
            read_typed<FLOAT32>(start, start_of(a, clip, way, k), 0, 0, a.state, sub);
            memset(start + a.state * LANES, 0, (padded - a.state) * LANES * sizeof(float));
            continue;
        }
        const int64_t begin = (back ? chunks - k : k - 1) * SPAN;
        const int64_t left = clip.length - begin, steps = left < SPAN ? left : SPAN;
        load_chunk(a, s, rows, clip, begin, steps, false);
        memcpy(start, start - row, row * sizeof(float));
        const float *dt = rows.dt + begin * LANES;
        int64_t n = 0;
        for (; n + MANY <= padded; n += MANY)
            pass_through<MANY>(A + n * LANES, start + n * LANES, dt, s.x, s.B + n, padded, steps,
                               back);
        for (; n < padded; n += FEW)
            pass_through<FEW>(A + n * LANES, start + n * LANES, dt, s.x, s.B + n, padded, steps,
                              back);
    }
    for (int64_t k = chunks - 1; k >= 0; k--) {
        const int64_t begin = (back ? chunks - 1 - k : k) * SPAN;
        const int64_t left = clip.length - begin, steps = left < SPAN ? left : SPAN;
        load_chunk(a, s, rows, clip, begin, steps, true);
        const int64_t at = (clip.row * a.clips.length + clip.first + begin) * a.state;
        const StateSums to = {sums.dB + at, sums.dC + at, a.state, 0};
        const float *start = s.starts + k * row;
        int64_t n = 0;
        for (; n + MANY <= padded; n += MANY)
            chunk_gradients<MANY>(s, rows, A, start, dA, n, begin, to, steps, back);
        for (; n < padded; n += FEW)
            chunk_gradients<FEW>(s, rows, A, start, dA, n, begin, to, steps, back);
    }
}

// Everything that is read of a clip: step sizes, inputs, and gradients before the gate.
INLINE void read_clip(const ScanArguments &a, const BackwardScratch &s, Stretch clip, Block block) {
    const int64_t apart = s.kept * LANES;
    for (int64_t begin = 0; begin < clip.length; begin += SPAN) {
        const int64_t left = clip.length - begin, steps = left < SPAN ? left : SPAN;
        const int64_t at = begin * LANES, step = clip.first + begin;
        read_inputs(a, clip, begin, steps, block, s.dt + at, s.u + at, s.kept);
        read_steps(s.dy + at, a.y, clip.row, step, steps, block, apart);
        if (a.z.data) read_steps(s.gate, a.z, clip.row, step, steps, block, SPAN * LANES);
        for (int i = 0; a.z.data && i < block.subs(); i++)
            for (int64_t k = 0; k < steps; k++) {
                const int64_t own = at + i * apart + k * LANES;
                const Lanes z = load(s.gate + (i * SPAN + k) * LANES), open = sigmoid_of(z);
                const Lanes dy = load(s.dy + own);
                store(s.dy + own, dy * z * open);
                store(s.slope + own, dy * open * (1.0f + z * (1.0f - open)));
            }
    }
    const int64_t bytes = clip.length * LANES * sizeof(float);
    for (int i = 0; i < block.subs(); i++)
        memset(s.y + i * apart, 0, bytes), memset(s.ddt + i * apart, 0, bytes),
            memset(s.ds + i * apart, 0, bytes);
}

struct ChannelSums {
    Lanes dD, dbias;
};

// What both ways have added up of one vector of channels becomes gradients, in place.
INLINE void finish_steps(const ScanArguments &a, const BackwardScratch &s, int i, int64_t begin,
                         int64_t steps, Block sub, ChannelSums &sums) {
    const Lanes skip = skip_of(a, sub);
    for (int64_t k = 0; k < steps; k++) {
        const int64_t at = (i * s.kept + begin + k) * LANES;
        const Lanes u = load(s.u + at), dt = load(s.dt + at), dy = load(s.dy + at);
        const Lanes through = load(s.ds + at);
        Lanes ddelta = load(s.ddt + at) * (1 / LOG2E) + u * through;
        if (a.softplus) ddelta *= one_minus_exp_of(dt);
        sums.dD += dy * u, sums.dbias += ddelta;
        store(s.ddt + at, ddelta);
        store(s.u + at, dy * skip + dt * through);
        if (a.z.data) store(s.y + at, (load(s.y + at) + skip * u) * load(s.slope + at));
    }
}

// Gradients of a clip's step sizes, inputs and gates.
INLINE void write_clip(const ScanArguments &a, const BackwardScratch &s, Stretch clip, Block block,
                       ChannelSums *sums) {
    const int64_t apart = s.kept * LANES;
    for (int64_t begin = 0; begin < clip.length; begin += SPAN) {
        const int64_t left = clip.length - begin, steps = left < SPAN ? left : SPAN;
        const int64_t at = begin * LANES, step = clip.first + begin;
        for (int i = 0; i < block.subs(); i++)
            finish_steps(a, s, i, begin, steps, block.sub(i), sums[i]);
        write_steps(s.u + at, a.du, clip.row, step, steps, block, apart);
        write_steps(s.ddt + at, a.ddelta, clip.row, step, steps, block, apart);
        if (a.z.data) write_steps(s.y + at, a.dz, clip.row, step, steps, block, apart);
    }
}

INLINE void add_table(float *to, const float *rows, const ScanArguments &a, Block sub) {
    for (int c = 0; c < sub.count; c++)
        for (int64_t n = 0; n < a.state; n++)
            to[(sub.first + c) * a.state + n] += rows[n * LANES + c];
}

static void scan_backward(const ScanArguments &a, const ScanSums &sums, float *memory, Block block,
                          int64_t from, int64_t to) {
    BackwardScratch s;
    backward_layout(a, &s, memory);
    const int64_t table = s.padded * LANES;
    load_decays(s.A, a.A, a, s.padded, block);
    load_decays(s.A_back, a.A_back, a, s.padded, block);
    memset(s.dA, 0, SUBS * table * sizeof(float));
    memset(s.dA_back, 0, SUBS * table * sizeof(float));
    ChannelSums channels[SUBS] = {};
    for (int64_t number = from; number < to; number++) {
        const Stretch clip = clip_at(a.clips, number);
        read_clip(a, s, clip, block);
        for (int i = 0; i < block.subs(); i++) {
            const int64_t own = i * s.kept * LANES, at = i * table;
            const Rows rows = {s.dt + own, s.u + own, s.dy + own, s.y + own, s.ddt + own, s.ds + own};
            const Block sub = block.sub(i);
            backward_one_way(a, sums, s, rows, s.A + at, s.dA + at, clip, sub, 0, a.reverse);
            if (a.A_back)
                backward_one_way(a, sums, s, rows, s.A_back + at, s.dA_back + at, clip, sub, 1,
                                 !a.reverse);
        }
        write_clip(a, s, clip, block, channels);
    }
    for (int i = 0; i < block.subs(); i++) {
        const Block sub = block.sub(i);
        add_table(sums.dA, s.dA + i * table, a, sub);
        if (a.A_back) add_table(sums.dA_back, s.dA_back + i * table, a, sub);
        for (int c = 0; c < sub.count; c++) {
            sums.dD[sub.first + c] += channels[i].dD[c] * (a.A_back ? 2.0f : 1.0f);
            sums.dbias[sub.first + c] += channels[i].dbias[c];
        }
    }
}

}  // namespace
