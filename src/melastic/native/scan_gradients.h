// Gradients of the selective scan within a chunk: a few states of one vector of channels.
#pragma once
#include "scan_forward.h"

namespace {

// States whose gradients are computed side by side: no more than a vector has lanes for their sums.
const int SEVERAL = LANES < 8 ? LANES : 8;

// A row has LANES floats. What is read and written of a chunk is there for all vectors of channels,
// `kept` rows apart: of the whole clip where its steps are needed more than once. So are tables,
// `padded` rows apart, and states at the chunks' beginnings.
struct BackwardScratch {
    int64_t padded, kept, chunks;
    bool whole;
    float *A, *A_back, *dA, *dA_back, *g;    // rows: padded states, for each vector
    float *dt, *u, *dy, *y, *ddt, *ds;       // rows: steps kept, for each vector
    float *slope;                            // the same
    float *gate;                             // rows: steps of a chunk, for each vector
    float *starts;                           // rows: chunks x padded states, for each vector
    float *held;                             // rows: (CHUNK + 1) x SEVERAL states, SEVERAL decays
    float *sums;                             // rows: CHUNK x SEVERAL of dB, SEVERAL of dC
    float *B, *C;                            // CHUNK x padded

    int64_t at(int i, int64_t begin) const { return (i * kept + (whole ? begin : 0)) * LANES; }
};

static int64_t backward_layout(const ScanArguments &a, BackwardScratch *s, float *at) {
    BackwardScratch unused;
    if (!s) s = &unused;
    s->padded = rounded_up(a.state, FEW);
    const int64_t longest = rounded_up(longest_clip(a.clips), CHUNK);
    s->whole = a.A_back || !a.starts, s->chunks = longest / CHUNK;
    s->kept = s->whole ? longest : CHUNK;
    const int64_t table = SUBS * s->padded, steps = SUBS * s->kept, chunk = CHUNK * SEVERAL;
    float **const arrays[] = {&s->A,  &s->A_back, &s->dA,  &s->dA_back, &s->g,      &s->dt,
                              &s->u,  &s->dy,     &s->y,   &s->ddt,     &s->ds,     &s->slope,
                              &s->gate, &s->starts, &s->held, &s->sums};
    const int64_t rows[] = {table, table, table, table, table, steps,
                            steps, steps, steps, steps, steps, steps,
                            SUBS * CHUNK, table * s->chunks, 2 * (chunk + SEVERAL), 2 * chunk};
    const int64_t floats = place_rows(arrays, rows, 16, at);
    if (at) s->B = at + floats, s->C = at + floats + CHUNK * s->padded;
    return floats + 2 * CHUNK * s->padded;
}

static int64_t backward_floats(const ScanArguments &a) { return backward_layout(a, 0, 0); }

// Sums over the lanes of N vectors, each added to its own place.
template <int N>
INLINE void add_sums(float *to, const float *rows, int64_t count) {
    Lanes p[N];
    for (int n = 0; n < N; n++) p[n] = load(rows + n * LANES);
#pragma GCC unroll 4
    for (int half = N / 2; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            p[i] = weave_low(p[i], p[i + half]) + weave_high(p[i], p[i + half]);
    float sums[LANES];
    store(sums, p[0]);
    float total[N];
    for (int n = 0; n < N; n++) total[n] = 0;
#pragma GCC unroll 16
    for (int k = 0; k < LANES; k += N)
        for (int n = 0; n < N; n++) total[n] += sums[k + n];
    if (count == N)  // nearly always: as one vector
        for (int n = 0; n < N; n++) to[n] += total[n];
    else
        for (int n = 0; n < count; n++) to[n] += total[n];
}

// Rows of the clip that belong to one vector of channels.
struct Rows {
    const float *dt, *u, *dy;
    float *y, *ddt, *ds;
};

// Advance N states through a chunk without reading them.
template <int N, bool SLOW>
INLINE void pass_through_as(const float *A, float *h, const Rows &rows, const float *B,
                            int64_t padded, int64_t steps, bool back) {
    States<N, SLOW> states;
    states.begin(A, h);
    const int64_t turn = back ? -1 : 1;
    int64_t i = back ? steps - 1 : 0;
    for (int64_t k = 0; k < steps; k++, i += turn) {
        const Lanes d = load(rows.dt + i * LANES), in = d * load(rows.u + i * LANES);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) states.step(n, d, in, B[i * padded + n]);
    }
    states.end(h);
}

template <int N>
INLINE void pass_through(const float *A, float *h, const Rows &rows, const float *B,
                         int64_t padded, int64_t steps, bool back) {
    if (slow<N>(A, pace_of(rows.dt, steps)))  // as advance does
        pass_through_as<N, true>(A, h, rows, B, padded, steps, back);
    else
        pass_through_as<N, false>(A, h, rows, B, padded, steps, back);
}

// States and decays of a chunk, held; what is read off the states is added to y. A step's decays lie
// behind the states in front of it; the states at the chunk's beginning are `apart` floats apart.
template <int N>
INLINE void recompute(float *held, const float *A, const float *start, int64_t apart,
                      const Rows &rows, const float *B, const float *C, int64_t padded,
                      int64_t steps, bool back, const Ahead &ahead) {
    Lanes state[N], decay[N];
    for (int n = 0; n < N; n++) {
        state[n] = load(start + n * apart), decay[n] = load(A + n * LANES);
        store(held + n * LANES, state[n]);
    }
    const int64_t turn = back ? -1 : 1;
    int64_t i = back ? steps - 1 : 0;
    for (int64_t k = 0; k < steps; k++, i += turn) {
        const Lanes d = load(rows.dt + i * LANES), in = d * load(rows.u + i * LANES);
        const float *b = B + i * padded, *c = C + i * padded;
        Lanes out = load(rows.y + i * LANES);
        fetch(ahead, i);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) {
            const Power power = power_of(d * decay[n]);
            state[n] = decayed(state[n], power, in, splat(b[n]));
            out += state[n] * c[n];
            store(held + (N + n) * LANES, power.fraction);
            store(held + (2 * N + n) * LANES, state[n]);
        }
        store(rows.y + i * LANES, out);
        held += 2 * N * LANES;
    }
}

// From the chunk's end to its beginning: gradients of N states, and what they pass on.
template <int N>
INLINE void turn_back(const float *held, float *sums, const float *A, float *g, float *dA,
                      const Rows &rows, const float *B, const float *C, int64_t padded,
                      int64_t steps, bool back, const Ahead &ahead) {
    Lanes flow[N], slope[N];
    for (int n = 0; n < N; n++) flow[n] = load(g + n * LANES), slope[n] = load(dA + n * LANES);
    const int64_t turn = back ? 1 : -1;
    int64_t i = back ? 0 : steps - 1;
    for (int64_t k = steps - 1; k >= 0; k--, i += turn) {
        const Lanes d = load(rows.dt + i * LANES), in = d * load(rows.u + i * LANES);
        const Lanes out = load(rows.dy + i * LANES);
        const float *b = B + i * padded, *c = C + i * padded;
        const float *before = held + k * 2 * N * LANES;
        const float *fractions = before + N * LANES, *after = fractions + N * LANES;
        float *dB = sums + i * 2 * N * LANES, *dC = dB + N * LANES;
        fetch(ahead, i);
        Lanes more = load(rows.ddt + i * LANES), through = load(rows.ds + i * LANES);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) {
            const Lanes full = flow[n] + out * c[n];
            store(dC + n * LANES, load(dC + n * LANES) + out * load(after + n * LANES));
            store(dB + n * LANES, load(dB + n * LANES) + full * in);
            through += full * b[n];
            const Lanes decay = load(A + n * LANES);
            flow[n] = decayed(full, {load(fractions + n * LANES), whole_of(d * decay)});
            const Lanes rate = flow[n] * load(before + n * LANES);
            more += rate * decay;
            slope[n] += rate * d;
        }
        store(rows.ddt + i * LANES, more), store(rows.ds + i * LANES, through);
    }
    for (int n = 0; n < N; n++) store(g + n * LANES, flow[n]), store(dA + n * LANES, slope[n]);
}

INLINE Rows rows_of(const BackwardScratch &s, int i, int64_t begin) {
    const int64_t at = s.at(i, begin);
    return {s.dt + at, s.u + at, s.dy + at, s.y + at, s.ddt + at, s.ds + at};
}

}  // namespace
