// Gradients of the selective scan: chunk by chunk, from those behind a clip to those in front of it.
// States are computed again, from those at the chunks' beginnings.
#pragma once
#include "kernels.h"
#include "scan_gradients.h"

namespace {

// One way through a clip: its decays, their gradients, and where it is.
struct Way {
    const float *A;
    float *dA;
    int number;
    bool back;
    Stretch clip;
    int64_t chunks;

    int64_t begin(int64_t k) const { return (back ? chunks - 1 - k : k) * CHUNK; }
    int64_t steps(int64_t k) const {
        const int64_t left = clip.length - begin(k);
        return left < CHUNK ? left : CHUNK;
    }
};

// Whether states that were kept by the forward pass are read where they are.
INLINE bool read_in_place(const ScanArguments &a, const BackwardScratch &s, Block sub) {
    return a.starts && s.padded == a.state && sub.count == LANES;
}

// The states in front of each chunk of a vector of channels, but for those read in place.
INLINE void find_starts(const ScanArguments &a, const BackwardScratch &s, const Way &way, int i,
                        Block sub) {
    const int64_t padded = s.padded, row = padded * LANES;
    float *start = s.starts + i * s.chunks * row;
    const float *A = way.A + i * row;
    memset(start, 0, row * sizeof(float));
    for (int64_t k = 1; k < way.chunks && !read_in_place(a, s, sub); k++) {
        start += row;
        if (a.starts) {
            read_typed<FLOAT32>(start, start_of(a, way.clip, way.number, k, sub), 0, 0, a.state,
                                {0, sub.count});
            memset(start + a.state * LANES, 0, (padded - a.state) * LANES * sizeof(float));
            continue;
        }
        const int64_t begin = way.begin(k - 1), steps = way.steps(k - 1);
        const Rows rows = rows_of(s, i, begin);
        read_states(s.B, a.B, way.clip.row, way.clip.first + begin, steps, a.state, padded);
        memcpy(start, start - row, row * sizeof(float));
        int64_t n = 0;
        for (; n + SEVERAL <= padded; n += SEVERAL)
            pass_through<SEVERAL>(A + n * LANES, start + n * LANES, rows, s.B + n, padded, steps,
                                  way.back);
        for (; n < padded; n += FEW)
            pass_through<FEW>(A + n * LANES, start + n * LANES, rows, s.B + n, padded, steps,
                              way.back);
    }
}

// The states in front of a chunk, `apart` floats from one to the next.
struct Start {
    const float *states;
    int64_t apart;
};

INLINE Start start_at(const ScanArguments &a, const BackwardScratch &s, const Way &way, int i,
                      int64_t k, Block sub) {
    if (k && read_in_place(a, s, sub))
        return {(const float *)start_of(a, way.clip, way.number, k, sub).data, TOGETHER};
    return {s.starts + (i * s.chunks + k) * s.padded * LANES, LANES};
}

// What is read of the chunk after chunk k, and written of this one: fetched once, in passing, the
// states that the next one begins with beside the latter.
INLINE Ahead inputs_ahead(const ScanArguments &a, const BackwardScratch &s, const Way &way,
                          int64_t channel, int64_t k, int64_t n) {
    Ahead ahead;
    fetch_nothing(ahead, s.B);
    if (n || way.number || !k) return ahead;
    const int64_t step = way.clip.first + way.begin(k - 1), row = way.clip.row;
    const View views[] = {a.u, a.delta, a.z, a.y};
    for (int i = 0; i < 4; i++) fetch_view(ahead, i, views[i], row, step, channel, !way.back);
    return ahead;
}

INLINE Ahead outputs_ahead(const ScanArguments &a, const BackwardScratch &s, const Way &way,
                           Block sub, int64_t k, int64_t n) {
    Ahead ahead;
    fetch_nothing(ahead, s.B);
    if (n) return ahead;
    if (k > 1 && read_in_place(a, s, sub))
        fetch_view(ahead, 3, start_of(a, way.clip, way.number, k - 1, sub), 0, 0, 0, true);
    if (a.A_back && !way.number) return ahead;
    const int64_t step = way.clip.first + way.begin(k), row = way.clip.row;
    const View views[] = {a.du, a.ddelta, a.dz};
    for (int i = 0; i < 3; i++)
        fetch_view(ahead, i, views[i], row, step, sub.first, !way.back);
    return ahead;
}

// Gradients of N states from the n-th on in chunk k. Those of B and C are added up over vectors of
// channels lane by lane, and over lanes once for all.
template <int N>
INLINE void chunk_gradients(const ScanArguments &a, const ScanSums &sums, const BackwardScratch &s,
                            const Way &way, Block block, int64_t k, int64_t n) {
    const int64_t padded = s.padded, table = padded * LANES, row = n * LANES;
    const int64_t begin = way.begin(k), steps = way.steps(k);
    memset(s.sums, 0, steps * 2 * N * LANES * sizeof(float));
    for (int i = 0; i < block.subs(); i++) {
        const Rows rows = rows_of(s, i, begin);
        const float *A = way.A + i * table + row;
        const Start start = start_at(a, s, way, i, k, block.sub(i));
        const int64_t channel = block.first + i * LANES;
        recompute<N>(s.held, A, start.states + n * start.apart, start.apart, rows, s.B + n, s.C + n,
                     padded, steps, way.back, inputs_ahead(a, s, way, channel, k, n));
        turn_back<N>(s.held, s.sums, A, s.g + i * table + row, way.dA + i * table + row, rows,
                     s.B + n, s.C + n, padded, steps, way.back,
                     outputs_ahead(a, s, way, block.sub(i), k, n));
    }
    const int64_t left = a.state - n, count = left < N ? left : N;
    const int64_t first = way.clip.row * a.clips.length + way.clip.first + begin;
    for (int64_t step = 0; step < steps; step++) {
        const int64_t to = (first + step) * a.state + n;
        const float *from = s.sums + step * 2 * N * LANES;
        add_sums<N>(sums.dB + to, from, count);
        add_sums<N>(sums.dC + to, from + N * LANES, count);
    }
}

// What is read of a chunk: step sizes, inputs, and gradients before the gate.
INLINE void read_chunk(const ScanArguments &a, const BackwardScratch &s, Stretch clip,
                       int64_t begin, int64_t steps, Block block) {
    const int64_t apart = s.kept * LANES, at = s.at(0, begin), step = clip.first + begin;
    read_steps(s.dt + at, a.delta, clip.row, step, steps, block, apart);
    read_steps(s.u + at, a.u, clip.row, step, steps, block, apart);
    read_steps(s.dy + at, a.y, clip.row, step, steps, block, apart);
    if (a.z.data) read_steps(s.gate, a.z, clip.row, step, steps, block, CHUNK * LANES);
    for (int i = 0; i < block.subs(); i++) {
        const Lanes bias = channel_lanes(a.bias, block.sub(i));
        for (int64_t k = 0; k < steps; k++) {
            const int64_t own = s.at(i, begin) + k * LANES;
            store(s.dt + own, step_size(a, load(s.dt + own), bias));
            store(s.y + own, Lanes{}), store(s.ddt + own, Lanes{}), store(s.ds + own, Lanes{});
            if (!a.z.data) continue;
            const Lanes z = load(s.gate + (i * CHUNK + k) * LANES), open = sigmoid_of(z);
            const Lanes dy = load(s.dy + own), through = dy * open;
            store(s.dy + own, through * z);
            store(s.slope + own, through * (1.0f + z * (1.0f - open)));
        }
    }
}

struct ChannelSums {
    Lanes dD, dbias;
};

// What both ways have added up of one vector of channels becomes gradients, in place.
INLINE void finish_steps(const ScanArguments &a, const BackwardScratch &s, int i, int64_t begin,
                         int64_t steps, Block sub, ChannelSums &sums) {
    const Lanes skip = skip_of(a, sub);
    for (int64_t k = 0; k < steps; k++) {
        const int64_t at = s.at(i, begin) + k * LANES;
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

// Gradients of a chunk's step sizes, inputs and gates.
INLINE void write_chunk(const ScanArguments &a, const BackwardScratch &s, Stretch clip,
                        int64_t begin, int64_t steps, Block block, ChannelSums *sums) {
    const int64_t apart = s.kept * LANES, at = s.at(0, begin), step = clip.first + begin;
    for (int i = 0; i < block.subs(); i++)
        finish_steps(a, s, i, begin, steps, block.sub(i), sums[i]);
    write_steps(s.u + at, a.du, clip.row, step, steps, block, apart);
    write_steps(s.ddt + at, a.ddelta, clip.row, step, steps, block, apart);
    if (a.z.data) write_steps(s.y + at, a.dz, clip.row, step, steps, block, apart);
}

// Gradients of one way, added to what the step sizes, inputs, B, C and decays have so far. The first
// way reads chunks, unless they are there, the last one writes them.
static void backward_one_way(const ScanArguments &a, const ScanSums &sums,
                             const BackwardScratch &s, const Way &way, Block block,
                             ChannelSums *channels) {
    const bool first = way.number == 0, last = way.number == 1 || !a.A_back;
    memset(s.g, 0, block.subs() * s.padded * LANES * sizeof(float));
    for (int64_t k = 0; first && !a.starts && k < way.chunks; k++)
        read_chunk(a, s, way.clip, way.begin(k), way.steps(k), block);
    for (int i = 0; i < block.subs(); i++) find_starts(a, s, way, i, block.sub(i));
    for (int64_t k = way.chunks - 1; k >= 0; k--) {
        const int64_t begin = way.begin(k), steps = way.steps(k), step = way.clip.first + begin;
        if (first && a.starts) read_chunk(a, s, way.clip, begin, steps, block);
        read_states(s.B, a.B, way.clip.row, step, steps, a.state, s.padded);
        read_states(s.C, a.C, way.clip.row, step, steps, a.state, s.padded);
        int64_t n = 0;
        for (; n + SEVERAL <= s.padded; n += SEVERAL)
            chunk_gradients<SEVERAL>(a, sums, s, way, block, k, n);
        for (; n < s.padded; n += FEW) chunk_gradients<FEW>(a, sums, s, way, block, k, n);
        if (last) write_chunk(a, s, way.clip, begin, steps, block, channels);
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
        const int64_t chunks = (clip.length + CHUNK - 1) / CHUNK;
        const bool back = a.reverse;
        backward_one_way(a, sums, s, {s.A, s.dA, 0, back, clip, chunks}, block, channels);
        if (a.A_back)
            backward_one_way(a, sums, s, {s.A_back, s.dA_back, 1, !back, clip, chunks}, block,
                             channels);
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
