// The selective scan: LANES channels at once, a few states at a time, time in chunks.
#pragma once
#include "tiles.h"

namespace {

const int CHUNK = 16;
const int TOGETHER = 16;  // channels whose kept states lie together
const int FEW = 4;  // states are padded to a multiple of this
#if defined(__AVX512F__)
const int MANY = 16;  // states whose decays are computed side by side
#else
const int MANY = 4;
#endif

// What the next chunk reads and writes, fetched while computing, one address a step for each view:
// that of a step, or of a channel where its steps lie side by side. These lie pages apart, beyond the
// reach of the processor's own guesses.
const int FETCHED = 4;
struct Ahead {
    bool any;
    const char *at[FETCHED];
    int64_t stride[FETCHED];  // bytes
};

INLINE void fetch_nothing(Ahead &ahead, const void *anything) {
    ahead.any = false;
    for (int i = 0; i < FETCHED; i++) ahead.at[i] = (const char *)anything, ahead.stride[i] = 0;
}

INLINE void fetch_view(Ahead &ahead, int i, const View &view, int64_t row, int64_t step,
                       int64_t channel, bool back) {
    const bool across = view.channel == 1, along = view.step == 1;
    if (!view.data || !(across || along)) return;
    const int64_t size = view.dtype == FLOAT32 ? 4 : 2, far = !across && !back ? CHUNK - 1 : 0;
    const int64_t at = row * view.row + (step + far) * view.step + channel * view.channel;
    ahead.any = true;
    ahead.at[i] = (const char *)view.data + at * size;
    ahead.stride[i] = (across ? view.step : view.channel) * size;
}

INLINE void fetch(const Ahead &ahead, int64_t step) {
    if (!ahead.any) return;
#pragma GCC unroll 4
    for (int v = 0; v < FETCHED; v++)
        __builtin_prefetch(ahead.at[v] + step * ahead.stride[v], 0, 2);  // into the second cache
}

// The largest step size, or a quarter of all together, if that is more.
INLINE Lanes pace_of(const float *dt, int64_t steps) {
    Lanes largest = {}, total = {};
    for (int64_t k = 0; k < steps; k++) {
        const Lanes d = load(dt + k * LANES), size = larger(d, -d);
        largest = larger(largest, size), total += size;
    }
    return larger(largest, 0.25f * total);
}

// Whether N states are so slow that each power of 2 has the whole part 0, and all together take no
// more than three quarters away. Not so where anything is not a number.
template <int N>
INLINE bool slow(const float *A, Lanes pace) {
    bool all = true;
    for (int n = N - 1; n >= 0 && all; n--) {  // the last, as models begin, is the fastest
        const Lanes x = load(A + n * LANES) * pace;
        all = all_below(larger(x, -x), 0.5f);
    }
    return all;
}

// N states on their way through a chunk. What slow ones change by is added up apart, so that they are
// rounded once a chunk and not once a step.
template <int N, bool SLOW>
struct States {
    Lanes state[N], decay[N], change[N];

    INLINE_METHOD void begin(const float *A, const float *h) {
        for (int n = 0; n < N; n++) {
            state[n] = load(h + n * LANES), decay[n] = load(A + n * LANES);
            change[n] = Lanes{};
        }
    }
    // The n-th after one more step.
    INLINE_METHOD Lanes step(int n, Lanes d, Lanes in, float b) {
        if (!SLOW) return state[n] = decayed(state[n], power_of(d * decay[n]), in, splat(b));
        change[n] += fraction_of(d * decay[n]) * (state[n] + change[n]) + in * b;
        return state[n] + change[n];
    }
    INLINE_METHOD void end(float *h) const {
        for (int n = 0; n < N; n++) store(h + n * LANES, SLOW ? state[n] + change[n] : state[n]);
    }
};

// Advance N states through a chunk and add what is read off them to y.
template <int N, bool SLOW>
INLINE void advance_as(const float *A, float *h, const float *dt, const float *x, const float *B,
                       const float *C, int64_t padded, float *y, int64_t steps, bool back,
                       const Ahead &ahead) {
    States<N, SLOW> states;
    states.begin(A, h);
    const int64_t turn = back ? -1 : 1;
    int64_t i = back ? steps - 1 : 0;
    for (int64_t k = 0; k < steps; k++, i += turn) {
        const Lanes d = load(dt + i * LANES), in = load(x + i * LANES);
        const float *b = B + i * padded, *c = C + i * padded;
        Lanes out = load(y + i * LANES);
        fetch(ahead, i);
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) out += states.step(n, d, in, b[n]) * c[n];
        store(y + i * LANES, out);
    }
    states.end(h);
}

template <int N>
INLINE void advance(const float *A, float *h, const float *dt, const float *x, Lanes pace,
                    const float *B, const float *C, int64_t padded, float *y, int64_t steps,
                    bool back, const Ahead &ahead) {
    if (slow<N>(A, pace))
        advance_as<N, true>(A, h, dt, x, B, C, padded, y, steps, back, ahead);
    else
        advance_as<N, false>(A, h, dt, x, B, C, padded, y, steps, back, ahead);
}

// Where a task keeps its numbers. A row has LANES floats; each vector of channels has its own rows,
// those of a table `padded` and those of steps `kept` rows apart.
struct ForwardScratch {
    int64_t padded, kept;
    float *A, *A_back, *h;      // rows: padded states
    float *dt, *x, *y;          // rows: steps of a chunk, or of the longest clip where both ways
    float *u, *gate;            // rows: steps of a chunk
    float *B, *C;               // CHUNK x padded

    Places chunk(float *rows) const { return {rows, LANES, CHUNK * LANES}; }
    Places steps(float *rows) const { return {rows, LANES, kept * LANES}; }
};

// Rows between two arrays, which else begin at whole pages: measured 5 to 10 % faster gradients.
const int APART = 13;

// Put arrays of some rows one behind the other, if there is a place for them; the floats they take.
INLINE int64_t place_rows(float **const arrays[], const int64_t rows[], int count, float *at) {
    int64_t floats = 0;
    for (int i = 0; i < count; i++) {
        if (at) *arrays[i] = at + floats;
        floats += (rows[i] + APART) * LANES;
    }
    return floats;
}

static int64_t forward_layout(const ScanArguments &a, ForwardScratch *s, float *at) {
    ForwardScratch unused;
    if (!s) s = &unused;
    s->padded = rounded_up(a.state, FEW);
    s->kept = a.A_back ? rounded_up(longest_clip(a.clips), CHUNK) : CHUNK;
    const int64_t table = SUBS * s->padded, steps = SUBS * s->kept;
    const int64_t chunk = SUBS * CHUNK;
    float **const arrays[] = {&s->A, &s->A_back, &s->h, &s->dt, &s->x, &s->y, &s->u, &s->gate};
    const int64_t rows[] = {table, table, table, steps, steps, steps, chunk, chunk};
    const int64_t floats = place_rows(arrays, rows, 8, at);
    if (at) s->B = at + floats, s->C = at + floats + CHUNK * s->padded;
    return floats + 2 * CHUNK * s->padded;
}

static int64_t forward_floats(const ScanArguments &a) { return forward_layout(a, 0, 0); }

// Up to LANES numbers of a table with one for each channel; none are zero.
INLINE Lanes channel_lanes(const float *table, Block sub) {
    float values[LANES] = {0};
    for (int c = 0; table && c < sub.count; c++) values[c] = table[sub.first + c];
    return load(values);
}

// How the input goes past the state: once for each way.
INLINE Lanes skip_of(const ScanArguments &a, Block sub) {
    return channel_lanes(a.D, sub) * (a.A_back ? 2.0f : 1.0f);
}

INLINE void load_decays(float *to, const float *A, const ScanArguments &a, int64_t padded,
                        Block block) {
    for (int i = 0; A && i < block.subs(); i++) {
        float *table = to + i * padded * LANES;
        read_table(table, A, a.state, padded, block.sub(i));
        for (int64_t n = 0; n < padded; n++)
            store(table + n * LANES, load(table + n * LANES) * LOG2E);
    }
}

// A step size as the recurrence takes it.
INLINE Lanes step_size(const ScanArguments &a, Lanes delta, Lanes bias) {
    return a.softplus ? softplus_of(delta + bias) : delta + bias;
}

// Step sizes, what enters the states, and what of the input goes past them, of a chunk.
INLINE void read_inputs(const ScanArguments &a, const ForwardScratch &s, Stretch clip,
                        int64_t begin, int64_t steps, Block block, float *dt, float *x, float *y) {
    const int64_t step = clip.first + begin;
    const Places delta = rows_read(s.steps(dt), a.delta, clip.row, step, steps, block);
    const Places u = rows_read(s.chunk(s.u), a.u, clip.row, step, steps, block);
    for (int i = 0; i < block.subs(); i++) {
        const Lanes bias = channel_lanes(a.bias, block.sub(i)), skip = skip_of(a, block.sub(i));
        for (int64_t k = 0; k < steps; k++) {
            const int64_t to = (i * s.kept + k) * LANES;
            const Lanes d = step_size(a, load(delta.row(i, k)), bias), in = load(u.row(i, k));
            store(dt + to, d), store(x + to, d * in), store(y + to, skip * in);
        }
    }
}

// One chunk of one way of one vector of channels: advances its states, adds to y.
INLINE void scan_chunk(const ForwardScratch &s, const float *A, float *h, int64_t steps, bool back,
                       const float *dt, const float *x, float *y, Ahead ahead) {
    const int64_t padded = s.padded;
    const Lanes pace = pace_of(dt, steps);
    int64_t n = 0;
    for (; n + MANY <= padded; n += MANY, fetch_nothing(ahead, dt))
        advance<MANY>(A + n * LANES, h + n * LANES, dt, x, pace, s.B + n, s.C + n, padded, y,
                      steps, back, ahead);
    for (; n < padded; n += FEW, fetch_nothing(ahead, dt))
        advance<FEW>(A + n * LANES, h + n * LANES, dt, x, pace, s.B + n, s.C + n, padded, y,
                     steps, back, ahead);
}

// Outputs of a chunk, through the gate.
INLINE void write_outputs(const ScanArguments &a, const ForwardScratch &s, Stretch clip,
                          int64_t begin, int64_t steps, Block block, float *y) {
    const int64_t step = clip.first + begin;
    const bool direct = lies_in_rows(a.y, block);
    if (!a.z.data) return write_steps(y, a.y, clip.row, step, steps, block, s.kept * LANES);
    const Places z = rows_read(s.chunk(s.gate), a.z, clip.row, step, steps, block);
    const Places out = direct ? in_place(a.y, clip.row, step, block) : s.steps(y);
    for (int i = 0; i < block.subs(); i++)
        for (int64_t k = 0; k < steps; k++) {
            const Lanes gate = load(z.row(i, k));
            store(out.row(i, k), load(y + (i * s.kept + k) * LANES) * silu_of(gate));
        }
    if (!direct) write_steps(y, a.y, clip.row, step, steps, block, s.kept * LANES);
}

INLINE void begin_state(const ScanArguments &a, const ForwardScratch &s, int64_t clip,
                        Block block) {
    memset(s.h, 0, SUBS * s.padded * LANES * sizeof(float));
    for (int i = 0; a.state_in && i < block.subs(); i++)
        read_table(s.h + i * s.padded * LANES, a.state_in + clip * a.dim * a.state, a.state,
                   s.padded, block.sub(i));
}

INLINE void end_state(const ScanArguments &a, const ForwardScratch &s, int64_t clip, Block block) {
    for (int c = 0; a.state_out && c < block.count; c++)
        for (int64_t n = 0; n < a.state; n++)
            a.state_out[(clip * a.dim + block.first + c) * a.state + n] =
                s.h[(c / LANES * s.padded + n) * LANES + c % LANES];
}

// Where states in front of chunks are kept. A clip that begins at step s has its own from place
// s / CHUNK on, where no other clip has any.
INLINE int64_t places_of(const ScanArguments &a) {
    return a.clips.rows * a.clips.length / CHUNK + 2;
}
INLINE int64_t first_place(const ScanArguments &a, Stretch clip) {
    return (clip.row * a.clips.length + clip.first) / CHUNK;
}

// The states in front of a chunk that is not its clip's first, as a view "0 state channel".
// Channels lie in blocks of TOGETHER, so that a vector of 16 channels has its states in one piece.
INLINE View start_of(const ScanArguments &a, Stretch clip, int way, int64_t chunk, Block sub) {
    const int64_t place = way * places_of(a) + first_place(a, clip) + chunk - 1;
    const int64_t blocks = (a.dim + TOGETHER - 1) / TOGETHER;
    const int64_t block = place * blocks + sub.first / TOGETHER;
    float *data = a.starts + block * a.state * TOGETHER + sub.first % TOGETHER;
    return {data, 0, TOGETHER, 1, FLOAT32};
}

// Zeros where no chunk of a clip keeps states, up to where those of the next clip lie.
static void clear_unused(const ScanArguments &a, int64_t number, int64_t chunks, Block block) {
    const Stretch clip = clip_at(a.clips, number);
    const bool last = number + 1 == a.clips.clips;
    const int64_t end = last ? places_of(a) : first_place(a, clip_at(a.clips, number + 1));
    const int64_t count = end - first_place(a, clip) + 1;
    for (int way = 0; way < (a.A_back ? 2 : 1); way++)
        for (int64_t chunk = chunks; chunk < count; chunk++)
            for (int i = 0; i < block.subs(); i++) {
                float *data = (float *)start_of(a, clip, way, chunk, block.sub(i)).data;
                for (int64_t n = 0; n < a.state; n++) store(data + n * TOGETHER, Lanes{});
            }
}

// One clip, one way or both; on the way back, what the first way has read and added up is there.
static void forward_clip(const ScanArguments &a, const ForwardScratch &s, int64_t number,
                         Block block) {
    const Stretch clip = clip_at(a.clips, number);
    const int64_t chunks = (clip.length + CHUNK - 1) / CHUNK;
    const int ways = a.A_back ? 2 : 1;
    for (int way = 0; way < ways; way++) {
        const bool back = (way == 1) != (a.reverse != 0);
        const float *A = way ? s.A_back : s.A;
        begin_state(a, s, number, block);
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const int64_t begin = (back ? chunks - 1 - chunk : chunk) * CHUNK;
            const int64_t left = clip.length - begin, steps = left < CHUNK ? left : CHUNK;
            const int64_t at = ways == 2 ? begin * LANES : 0, step = clip.first + begin;
            float *dt = s.dt + at, *x = s.x + at, *y = s.y + at;
            read_states(s.B, a.B, clip.row, step, steps, a.state, s.padded);
            read_states(s.C, a.C, clip.row, step, steps, a.state, s.padded);
            if (way == 0) read_inputs(a, s, clip, begin, steps, block, dt, x, y);
            for (int i = 0; i < block.subs(); i++) {
                const int64_t own = i * s.kept * LANES, table = i * s.padded * LANES;
                const Block sub = block.sub(i);
                if (a.starts && chunk)
                    write_typed<FLOAT32>(s.h + table, start_of(a, clip, way, chunk, sub), 0, 0,
                                         a.state, {0, LANES});
                Ahead ahead;
                fetch_nothing(ahead, dt);
                if (chunk + 1 < chunks) {
                    const int64_t next = clip.first + (back ? begin - CHUNK : begin + CHUNK);
                    const int64_t channel = block.first + i * LANES;
                    if (way == 0) fetch_view(ahead, 0, a.u, clip.row, next, channel, back);
                    if (way == 0) fetch_view(ahead, 1, a.delta, clip.row, next, channel, back);
                    if (way == ways - 1) fetch_view(ahead, 2, a.z, clip.row, next, channel, back);
                    if (way == ways - 1) fetch_view(ahead, 3, a.y, clip.row, next, channel, back);
                }
                scan_chunk(s, A + table, s.h + table, steps, back, dt + own, x + own, y + own,
                           ahead);
            }
            if (way == ways - 1) write_outputs(a, s, clip, begin, steps, block, y);
        }
    }
    if (a.starts) clear_unused(a, number, chunks, block);
    end_state(a, s, number, block);
}

static void scan_forward(const ScanArguments &a, float *memory, Block block, int64_t from,
                         int64_t to) {
    ForwardScratch s;
    forward_layout(a, &s, memory);
    load_decays(s.A, a.A, a, s.padded, block);
    load_decays(s.A_back, a.A_back, a, s.padded, block);
    for (int64_t clip = from; clip < to; clip++) forward_clip(a, s, clip, block);
}

}  // namespace
