// What Python calls: picks the instruction set, gives threads their tasks, adds up their sums.
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "tasks.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

extern const Kernels melastic_baseline;
#if defined(__x86_64__)
extern const Kernels melastic_avx2, melastic_avx512;
#endif

namespace {

enum { OK = 0, NO_MEMORY = 1, UNKNOWN = 2, WRONG_CLIPS = 3 };

const char *chosen_name = 0;
const Kernels *chosen = 0;

bool supported(const char *name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("f16c");
    return !strcmp(name, "baseline") && __builtin_cpu_supports("sse4.2");
#else
    return !strcmp(name, "baseline");
#endif
}

const Kernels *kernels_named(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "avx512")) return &melastic_avx512;
    if (!strcmp(name, "avx2")) return &melastic_avx2;
#endif
    return &melastic_baseline;
}

const char *const BEST_FIRST[] = {"avx512", "avx2", "baseline"};

const Kernels &best() {
    for (int i = 0; !chosen && i < 3; i++)
        if (supported(BEST_FIRST[i]))
            chosen = kernels_named(BEST_FIRST[i]), chosen_name = BEST_FIRST[i];
    return *chosen;
}

// Borders may come from a compiled program, which checks nothing: others would write anywhere.
bool possible(const Clips &clips) {
    if (!clips.bounds) return true;
    if (clips.rows != 1 || clips.clips < 1 || clips.bounds[0] != 0) return false;
    for (int64_t i = 0; i < clips.clips; i++)
        if (clips.bounds[i] >= clips.bounds[i + 1]) return false;
    return clips.bounds[clips.clips] == clips.length;
}

// Working space of a thread. It is kept for the next call, unless it is large: fresh pages cost more
// than the arithmetic of a short clip.
class Memory {
  public:
    ~Memory() { release(); }

    float *floats(int64_t count) {
        const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
        if (bytes <= size) return data;
        release();
        void *memory = 0;
        if (posix_memalign(&memory, 64, bytes)) return 0;
        data = (float *)memory, size = bytes;
        return data;
    }

    void done() {
        if (size > KEPT) release();
    }

  private:
    static const size_t KEPT = 16 << 20;

    void release() {
        free(data);
        data = 0, size = 0;
    }

    float *data = 0;
    size_t size = 0;
};

thread_local Memory working, sums;

float *zeros(int64_t count) {
    float *at = sums.floats(count);
    if (at) memset(at, 0, count * sizeof(float));
    return at;
}

struct Forward {
    const ScanArguments *a;
    const Kernels *k;
    Tasks tasks;
    int64_t next;
    bool failed;
};

void forward_work(void *context, int64_t, int64_t) {
    Forward &f = *(Forward *)context;
    float *memory = working.floats(f.k->forward_floats(*f.a));
    if (!memory) {
        f.failed = true;
        return;
    }
    // Whoever is free takes the next task: tasks share no sum, so that the order is of no account.
    for (;;) {
        const int64_t task = __atomic_fetch_add(&f.next, 1, __ATOMIC_RELAXED);
        if (task >= f.tasks.count()) break;
        f.k->scan_forward(*f.a, memory, f.tasks.first(task), f.tasks.channels(task),
                          f.tasks.from(task), f.tasks.to(task));
    }
    working.done();
}

// What each thread adds up apart, so that the same threads always give the same sums.
struct Backward {
    const ScanArguments *a;
    const Kernels *k;
    Tasks tasks;
    float *sums;  // threads x size
    int64_t entries, tables, size;
    bool failed;
};

ScanSums sums_at(const Backward &b, float *at) {
    const int64_t dim = b.a->dim;
    ScanSums s;
    s.dB = at, s.dC = at + b.entries;
    s.dA = s.dC + b.entries, s.dA_back = s.dA + b.tables;
    s.dD = s.dA_back + b.tables, s.dbias = s.dD + dim;
    return s;
}

void backward_work(void *context, int64_t thread, int64_t threads) {
    Backward &b = *(Backward *)context;
    float *memory = working.floats(b.k->backward_floats(*b.a));
    if (!memory) {
        b.failed = true;
        return;
    }
    const ScanSums sums = sums_at(b, b.sums + thread * b.size);
    const int64_t count = b.tasks.count();
    for (int64_t task = count * thread / threads; task < count * (thread + 1) / threads; task++)
        b.k->scan_backward(*b.a, sums, memory, b.tasks.first(task), b.tasks.channels(task),
                           b.tasks.from(task), b.tasks.to(task));
    working.done();
}

void add(float *to, const float *from, int64_t count) {
    if (!to) return;
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

struct Convolve {
    const ConvArguments *a;
    const Kernels *k;
    Tasks tasks;
    float *sums;  // threads x size; none forward
    int64_t size;
};

void convolve_work(void *context, int64_t thread, int64_t threads) {
    Convolve &c = *(Convolve *)context;
    const int64_t count = c.tasks.count();
    float *sums = c.sums ? c.sums + thread * c.size : 0;
    for (int64_t task = count * thread / threads; task < count * (thread + 1) / threads; task++) {
        const int64_t first = c.tasks.first(task), channels = c.tasks.channels(task);
        if (sums)
            c.k->convolve_backward(*c.a, sums, sums + c.a->dim * c.a->width, first, channels,
                                   c.tasks.from(task), c.tasks.to(task));
        else
            c.k->convolve_forward(*c.a, first, channels, c.tasks.from(task), c.tasks.to(task));
    }
}

struct Norm {
    const NormArguments *a;
    const Kernels *k;
    float *sums;  // threads x size; none forward
    int64_t size;
};

void norm_work(void *context, int64_t thread, int64_t threads) {
    Norm &n = *(Norm *)context;
    const int64_t from = n.a->rows * thread / threads, to = n.a->rows * (thread + 1) / threads;
    if (n.sums)
        n.k->norm_backward(*n.a, n.sums + thread * n.size, from, to);
    else
        n.k->norm_forward(*n.a, from, to);
}

}  // namespace

EXPORT int64_t melastic_abi() { return MELASTIC_ABI; }

// Fingerprint of the sources that it was built of.
EXPORT const char *melastic_sources() { return MELASTIC_SOURCES; }

EXPORT const char *melastic_instructions() {
    best();
    return chosen_name;
}

EXPORT int64_t melastic_supports(const char *name) { return supported(name); }

EXPORT int64_t melastic_use(const char *name) {
    if (!supported(name)) return UNKNOWN;
    chosen = kernels_named(name);
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, BEST_FIRST[i])) chosen_name = BEST_FIRST[i];
    return OK;
}

EXPORT int64_t melastic_scan_forward(const ScanArguments *a) {
    if (!possible(a->clips)) return WRONG_CLIPS;
    const Kernels &k = best();
    const int64_t threads = useful_threads(a->threads, a->clips, a->dim * a->state);
    const int64_t channels = task_channels(a->dim, k.wide, k.lanes, threads);
    const Tasks tasks = tasks_of(a->clips, a->dim, channels, threads);
    Forward f = {a, &k, evened_out(tasks, threads), 0, false};
    on_threads(threads, &f, forward_work);
    return f.failed ? NO_MEMORY : OK;
}

EXPORT int64_t melastic_scan_backward(const ScanArguments *a) {
    if (!possible(a->clips)) return WRONG_CLIPS;
    const Kernels &k = best();
    const int64_t threads = useful_threads(a->threads, a->clips, a->dim * a->state);
    const int64_t channels = task_channels(a->dim, k.wide, k.lanes, threads);
    Backward b = {a, &k, tasks_of(a->clips, a->dim, channels, threads), 0, 0, 0, 0, false};
    b.entries = a->clips.rows * a->clips.length * a->state;
    b.tables = a->dim * a->state;
    b.size = (2 * b.entries + 2 * b.tables + 2 * a->dim + 15) / 16 * 16;
    b.sums = zeros(threads * b.size);
    if (!b.sums) return NO_MEMORY;
    on_threads(threads, &b, backward_work);
    for (int64_t thread = 0; thread < threads; thread++) {
        const ScanSums s = sums_at(b, b.sums + thread * b.size);
        add(a->dB, s.dB, b.entries), add(a->dC, s.dC, b.entries);
        add(a->dA, s.dA, b.tables), add(a->dA_back, s.dA_back, b.tables);
        add(a->dD, s.dD, a->dim), add(a->dbias, s.dbias, a->dim);
    }
    sums.done();
    return b.failed ? NO_MEMORY : OK;
}

EXPORT int64_t melastic_convolve_forward(const ConvArguments *a) {
    if (!possible(a->clips)) return WRONG_CLIPS;
    const Kernels &k = best();
    const int64_t threads = useful_threads(a->threads, a->clips, a->dim * 8);
    Convolve c = {a, &k, tasks_of(a->clips, a->dim, k.lanes, threads), 0, 0};
    on_threads(threads, &c, convolve_work);
    return OK;
}

EXPORT int64_t melastic_convolve_backward(const ConvArguments *a) {
    if (!possible(a->clips)) return WRONG_CLIPS;
    const Kernels &k = best();
    const int64_t threads = useful_threads(a->threads, a->clips, a->dim * 16);
    const int64_t size = (a->dim * (a->width + 1) + 15) / 16 * 16;
    float *parts = zeros(threads * size);
    if (!parts) return NO_MEMORY;
    Convolve c = {a, &k, tasks_of(a->clips, a->dim, k.lanes, threads), parts, size};
    on_threads(threads, &c, convolve_work);
    for (int64_t thread = 0; thread < threads; thread++) {
        add(a->dweight, parts + thread * size, a->dim * a->width);
        add(a->dbias, parts + thread * size + a->dim * a->width, a->dim);
    }
    sums.done();
    return OK;
}

EXPORT int64_t melastic_norm_forward(const NormArguments *a) {
    Norm n = {a, &best(), 0, 0};
    on_threads(threads_for(a->rows * a->dim, a->threads), &n, norm_work);
    return OK;
}

EXPORT int64_t melastic_norm_backward(const NormArguments *a) {
    const int64_t threads = threads_for(a->rows * a->dim * 2, a->threads);
    const int64_t size = (a->dim + 15) / 16 * 16;
    float *parts = zeros(threads * size);
    if (!parts) return NO_MEMORY;
    Norm n = {a, &best(), parts, size};
    on_threads(threads, &n, norm_work);
    for (int64_t thread = 0; thread < threads; thread++)
        add(a->dweight, parts + thread * size, a->dim);
    sums.done();
    return OK;
}
