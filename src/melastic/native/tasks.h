// Tasks of a kernel, and the threads that do them.
#pragma once
#include <stdint.h>

#if defined(_OPENMP)
#include <omp.h>
#elif defined(__APPLE__)
#include <dispatch/dispatch.h>
#endif

#include "abi.h"

namespace {

// Task `first` of `threads` runs on thread 0, and so on; each thread has its own number.
typedef void (*Work)(void *context, int64_t thread, int64_t threads);

#if defined(_OPENMP)
// Looks some 15 microseconds whether all are done, before OpenMP may put the caller to sleep: to be
// woken takes longer.
void await(const int *done, int all) {
    const int LOOKS = 1 << 15;
    for (int i = 0; i < LOOKS && __atomic_load_n(done, __ATOMIC_ACQUIRE) < all; i++) continue;
}
#endif

void on_threads(int64_t threads, void *context, Work work) {
    if (threads <= 1) return work(context, 0, 1);
#if defined(_OPENMP)
    int done = 0;
#pragma omp parallel num_threads((int)threads)
    {
        work(context, omp_get_thread_num(), omp_get_num_threads());
        __atomic_fetch_add(&done, 1, __ATOMIC_RELEASE);
        if (!omp_get_thread_num()) await(&done, omp_get_num_threads());
    }
#elif defined(__APPLE__)
    struct Call {
        void *context;
        Work work;
        int64_t threads;
    } call = {context, work, threads};
    dispatch_apply_f(threads, dispatch_get_global_queue(QOS_CLASS_USER_INITIATED, 0), &call,
                     [](void *c, size_t thread) {
                         Call *call = (Call *)c;
                         call->work(call->context, (int64_t)thread, call->threads);
                     });
#else
    work(context, 0, 1);
#endif
}

int64_t tokens_before(const Clips &clips, int64_t clip) {
    return clips.bounds ? clips.bounds[clip] - clips.bounds[0] : clip * clips.length;
}

// Tasks: blocks of channels x groups of neighbouring clips with about as many steps each. Blocks from
// number `wide` on are narrower.
struct Tasks {
    const Clips *clips;
    int64_t dim, lanes, blocks, groups, wide, narrow;

    int64_t count() const { return blocks * groups; }
    int64_t first(int64_t task) const {
        const int64_t block = task / groups;
        return block < wide ? block * lanes : wide * lanes + (block - wide) * narrow;
    }
    int64_t channels(int64_t task) const {
        const int64_t left = dim - first(task), most = task / groups < wide ? lanes : narrow;
        return left < most ? left : most;
    }
    // The first clip that begins at or after a group's share of all steps.
    int64_t clip(int64_t group) const {
        const int64_t total = tokens_before(*clips, clips->clips);
        int64_t low = 0, high = clips->clips;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (tokens_before(*clips, middle) * groups < group * total)
                low = middle + 1;
            else
                high = middle;
        }
        return group == groups ? clips->clips : low;
    }
    int64_t from(int64_t task) const { return clip(task % groups); }
    int64_t to(int64_t task) const { return clip(task % groups + 1); }
};

const int64_t TASKS_A_THREAD = 4;
const int64_t NARROW = 16;  // channels: a cache line of a step
const int64_t WORTH_A_THREAD = 1 << 17;  // multiply-adds

// Channels of a task: as many as fit, where all threads still get tasks.
int64_t task_channels(int64_t dim, int64_t wide, int64_t lanes, int64_t threads) {
    while (wide > lanes && (dim + wide - 1) / wide < 2 * threads) wide /= 2;
    return wide;
}

Tasks tasks_of(const Clips &clips, int64_t dim, int64_t lanes, int64_t threads) {
    const int64_t blocks = (dim + lanes - 1) / lanes;
    int64_t groups = (TASKS_A_THREAD * threads + blocks - 1) / blocks;
    if (groups > clips.clips) groups = clips.clips;
    return {&clips, dim, lanes, blocks, groups < 1 ? 1 : groups, blocks, lanes};
}

// The last blocks of each thread in narrow pieces: threads that start late, or lose time to others,
// leave theirs to those that are done, and all end together.
Tasks evened_out(Tasks tasks, int64_t threads) {
    if (threads < 2 || tasks.lanes <= NARROW) return tasks;
    tasks.wide = tasks.blocks > threads ? tasks.blocks - threads : 0, tasks.narrow = NARROW;
    const int64_t left = tasks.dim - tasks.wide * tasks.lanes;
    tasks.blocks = tasks.wide + (left + NARROW - 1) / NARROW;
    return tasks;
}

int64_t threads_for(int64_t work, int64_t asked) {
    const int64_t most = work / WORTH_A_THREAD + 1;
    return asked < most ? asked : most;
}

int64_t useful_threads(int64_t asked, const Clips &clips, int64_t work_a_step) {
    return threads_for(tokens_before(clips, clips.clips) * work_a_step, asked);
}

}  // namespace
