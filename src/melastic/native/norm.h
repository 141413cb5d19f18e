// Addition and RMSNorm over contiguous rows, in one pass.
#pragma once
#include "tiles.h"

namespace {

template <int DTYPE>
INLINE Lanes read_row(const void *row, int64_t at, int count) {
    if (count == LANES) return read_lanes<DTYPE>(row, at);
    Lanes x = {};
    for (int i = 0; i < count; i++) x[i] = read_one<DTYPE>(row, at + i);
    return x;
}

template <int DTYPE>
INLINE void write_row(void *row, int64_t at, int count, Lanes x) {
    if (count == LANES) return write_lanes<DTYPE>(row, at, x);
    for (int i = 0; i < count; i++) write_one<DTYPE>(row, at + i, x[i]);
}

INLINE float total(Lanes x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

INLINE int lanes_left(int64_t dim, int64_t at) {
    return dim - at < LANES ? (int)(dim - at) : LANES;
}

// sum = x + more (x alone without more), normed = sum / rms(sum) * weight, for rows from..to.
template <int DTYPE>
INLINE void norm_rows(const NormArguments &a, int64_t from, int64_t to) {
    const int64_t dim = a.dim, bytes = DTYPE == FLOAT32 ? 4 : 2;
    for (int64_t row = from; row < to; row++) {
        const float *x = a.x + row * dim;
        float *sum = a.sum + row * dim;
        const char *more = a.more ? (const char *)a.more + row * dim * bytes : 0;
        char *normed = (char *)a.normed + row * dim * bytes;
        Lanes squares = {};
        for (int64_t at = 0; at < dim; at += LANES) {
            const int count = lanes_left(dim, at);
            Lanes value = read_row<FLOAT32>(x, at, count);
            if (more) {
                value += read_row<DTYPE>(more, at, count);
                write_row<FLOAT32>(sum, at, count, value);
            }
            squares += value * value;
        }
        const float rate = 1.0f / __builtin_sqrtf(total(squares) / dim + a.eps);
        const float *read = more ? sum : x;
        for (int64_t at = 0; at < dim; at += LANES) {
            const int count = lanes_left(dim, at);
            write_row<DTYPE>(normed, at, count,
                             read_row<FLOAT32>(read, at, count) * rate *
                                 read_row<FLOAT32>(a.weight, at, count));
        }
        a.rate[row] = rate;
    }
}

static void norm_forward(const NormArguments &a, int64_t from, int64_t to) {
    if (a.dtype == FLOAT32) return norm_rows<FLOAT32>(a, from, to);
    if (a.dtype == BFLOAT16) return norm_rows<BFLOAT16>(a, from, to);
    norm_rows<FLOAT16>(a, from, to);
}

// dx = dsum + the gradient through the norm; dweight is summed over the rows.
template <int DTYPE>
INLINE void norm_back_rows(const NormArguments &a, float *dweight, int64_t from, int64_t to) {
    const int64_t dim = a.dim, bytes = DTYPE == FLOAT32 ? 4 : 2;
    for (int64_t row = from; row < to; row++) {
        const float *x = a.x + row * dim, *dsum = a.dsum ? a.dsum + row * dim : 0;
        float *dx = a.dx + row * dim;
        const char *dnormed = (const char *)a.normed + row * dim * bytes;
        const float rate = a.rate[row];
        Lanes products = {};
        for (int64_t at = 0; at < dim; at += LANES) {
            const int count = lanes_left(dim, at);
            const Lanes value = read_row<FLOAT32>(x, at, count);
            const Lanes dy = read_row<DTYPE>(dnormed, at, count);
            products += value * dy * read_row<FLOAT32>(a.weight, at, count);
            write_row<FLOAT32>(dweight, at, count,
                               read_row<FLOAT32>(dweight, at, count) + dy * value * rate);
        }
        const float pull = total(products) * rate * rate * rate / dim;
        for (int64_t at = 0; at < dim; at += LANES) {
            const int count = lanes_left(dim, at);
            const Lanes dy = read_row<DTYPE>(dnormed, at, count);
            Lanes d = dy * read_row<FLOAT32>(a.weight, at, count) * rate -
                      read_row<FLOAT32>(x, at, count) * pull;
            if (dsum) d += read_row<FLOAT32>(dsum, at, count);
            write_row<FLOAT32>(dx, at, count, d);
        }
    }
}

static void norm_backward(const NormArguments &a, float *dweight, int64_t from, int64_t to) {
    if (a.dtype == FLOAT32) return norm_back_rows<FLOAT32>(a, dweight, from, to);
    if (a.dtype == BFLOAT16) return norm_back_rows<BFLOAT16>(a, dweight, from, to);
    norm_back_rows<FLOAT16>(a, dweight, from, to);
}

}  // namespace
