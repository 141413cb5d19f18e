// The kernels for one instruction set: compiled once for each, with its flags.
#include "kernels.h"

#include "scan_forward.h"
#include "scan_backward.h"
#include "convolution.h"
#include "norm.h"

#define NAMED_(isa) melastic_##isa
#define NAMED(isa) NAMED_(isa)

extern const Kernels NAMED(MELASTIC_ISA) = {
    WIDE,
    LANES,
    forward_floats,
    [](const ScanArguments &a, float *m, int64_t first, int64_t count, int64_t from, int64_t to) {
        scan_forward(a, m, {first, (int)count}, from, to);
    },
    backward_floats,
    [](const ScanArguments &a, const ScanSums &sums, float *m, int64_t first, int64_t count,
       int64_t from, int64_t to) { scan_backward(a, sums, m, {first, (int)count}, from, to); },
    [](const ConvArguments &a, int64_t first, int64_t count, int64_t from, int64_t to) {
        convolve_forward(a, {first, (int)count}, from, to);
    },
    [](const ConvArguments &a, float *dweight, float *dbias, int64_t first, int64_t count,
       int64_t from, int64_t to) {
        convolve_backward(a, dweight, dbias, {first, (int)count}, from, to);
    },
    norm_forward,
    norm_backward,
};
