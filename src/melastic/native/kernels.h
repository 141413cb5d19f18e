// The table of kernels that each instruction set fills.
#pragma once
#include "abi.h"

// What a thread adds up over its tasks.
struct ScanSums {
    float *dB, *dC;        // rows x length x state
    float *dA, *dA_back;   // dim x state
    float *dD, *dbias;     // dim
};

// A task is `count` channels from `first` on, of the clips `from` to `to`.
struct Kernels {
    int64_t wide;   // channels of a task of the scan at most
    int64_t lanes;  // of a task of the convolution
    int64_t (*forward_floats)(const ScanArguments &);
    void (*scan_forward)(const ScanArguments &, float *memory, int64_t first, int64_t count,
                         int64_t from, int64_t to);
    int64_t (*backward_floats)(const ScanArguments &);
    void (*scan_backward)(const ScanArguments &, const ScanSums &, float *memory, int64_t first,
                          int64_t count, int64_t from, int64_t to);
    void (*convolve_forward)(const ConvArguments &, int64_t first, int64_t count, int64_t from,
                             int64_t to);
    void (*convolve_backward)(const ConvArguments &, float *dweight, float *dbias, int64_t first,
                              int64_t count, int64_t from, int64_t to);
    void (*norm_forward)(const NormArguments &, int64_t from, int64_t to);
    void (*norm_backward)(const NormArguments &, float *dweight, int64_t from, int64_t to);
};
