// What crosses the border between Python and the kernels: plain C, no header of torch or Python.
// Sizes are counted in elements. A null pointer means that an operand is absent.
#pragma once
#include <stdint.h>

#define MELASTIC_ABI 4

enum Dtype { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

// A view "row step channel" of any strides.
struct View {
    void *data;
    int64_t row, step, channel;  // strides
    int64_t dtype;
};

// Which stretch of which row is a clip: clip i begins at bounds[i] and ends at bounds[i + 1] of row
// 0; without bounds each row is one clip.
struct Clips {
    int64_t rows, length;
    int64_t clips;
    const int32_t *bounds;
};

struct ScanArguments {
    Clips clips;
    int64_t dim, state;
    View u, delta, B, C, z;
    const float *A, *A_back;  // dim x state
    const float *D, *bias;    // dim
    int64_t softplus, reverse, threads;
    // Forward: what is written. Backward: the gradient that is read.
    View y;
    // State at the beginning and at the end of each clip, clips x dim x state; forward, one way.
    const float *state_in;
    float *state_out;
    // States in front of each chunk of CHUNK steps but a clip's first, ways x chunks x blocks of
    // TOGETHER channels x state x TOGETHER: forward writes them, backward reads them, or computes
    // them again where there are none.
    float *starts;
    // Backward: what is written.
    View du, ddelta, dz;
    float *dB, *dC;            // rows x length x state
    float *dA, *dA_back;       // dim x state
    float *dD, *dbias;         // dim
};

struct ConvArguments {
    Clips clips;
    int64_t dim, width, reverse, threads;
    View x, y;            // backward: y is the gradient that is read
    const float *weight;  // dim x width
    const float *bias;    // dim
    View dx;
    float *dweight, *dbias;
};

// Contiguous rows. `dtype` is the format of `more` and of `normed`; the rest is float32.
struct NormArguments {
    int64_t rows, dim, dtype, threads;
    float eps;
    const float *x, *weight;
    const void *more;
    float *sum;    // forward: x + more
    void *normed;  // backward: its gradient, which is read
    float *rate;   // rows; forward writes, backward reads
    // Backward: x is the sum of the forward pass.
    const float *dsum;
    float *dx, *dweight;
};
