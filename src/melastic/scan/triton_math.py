"""Functions of Triton kernels that are accurate, and the same in the interpreter and on a GPU."""

from typing import no_type_check

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
@no_type_check
def softplus(x):
    """log(1 + exp(x)) to float32 accuracy: log(1 + e) = 2 artanh(e / (2 + e)), as a series."""
    small = tl.exp2(-tl.abs(x) * LOG2_E)
    ratio = small / (2.0 + small)
    square = ratio * ratio
    series = 1.0 / 15.0
    series = series * square + 1.0 / 13.0
    series = series * square + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    series = series * square + 1.0
    return tl.maximum(x, 0.0) + 2.0 * ratio * series


@triton.jit
@no_type_check
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    small = tl.exp2(-tl.abs(x) * LOG2_E)
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
@no_type_check
def power_of_2(x, EXACT: tl.constexpr):
    """2 ** x = scale * (1 + part); EXACT: both to float32 accuracy, from 2 ** -126 to 2 ** 127.

    The instruction of a GPU is off by two units in the last place, and 1 + part, where it is near
    1, has rounded most of the part off: thousands of slow decays would multiply either. Numbers of
    16 bits are off by more. The polynomial is the Taylor series around the nearest whole number,
    which adding 1.5 * 2 ** 23 leaves in the lowest bits.
    """
    if EXACT:
        x = tl.maximum(x, -126.0, propagate_nan=tl.PropagateNan.ALL)
        x = tl.minimum(x, 127.0, propagate_nan=tl.PropagateNan.ALL)
        shifted = x + 12582912.0
        rest = x - (shifted - 12582912.0)
        series = 1.5252733804059838e-05
        series = series * rest + 0.00015403530393381606
        series = series * rest + 0.0013333558146428441
        series = series * rest + 0.0096181291076284769
        series = series * rest + 0.055504108664821576
        series = series * rest + 0.24022650695910069
        series = series * rest + 0.69314718055994529
        part = series * rest
        bits = (shifted.to(tl.int32, bitcast=True) << 23) + 0x3F800000
        scale = bits.to(tl.float32, bitcast=True)
    else:
        scale = tl.exp2(x)
        part = tl.zeros_like(scale)
    return scale, part


@triton.jit
@no_type_check
def decayed(state, scale, part, term, EXACT: tl.constexpr):
    """The state times scale * (1 + part), and term; EXACT: a part near 0 is not rounded."""
    left = scale * state
    return left + (part * left + term) if EXACT else left + term
