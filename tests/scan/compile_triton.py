"""Compile every Triton kernel for an H100, which need not be there.

Triton compiles for the device that its driver names; here that is a stand-in.
"""

from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from melastic.scan import triton_adjoint, triton_conv, triton_scan
from tests.scan.operands import draw


class StandIn:
    """The driver of a device that is not there."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int | None = None) -> int:
        return 0


def compiled(kernel: Any, grid: tuple[int, ...], _device: torch.device, **arguments: Any) -> None:
    """In place of a launch."""
    kernel.warmup(**arguments, num_warps=1, grid=grid)


def main() -> None:
    triton.runtime.driver.set_active(StandIn())
    for module in (triton_scan, triton_adjoint, triton_conv):
        module.launch = compiled
    triton_scan.ELEMENTS = triton_adjoint.ELEMENTS = 4
    everything = {"skip": True, "gate": True, "bias": True, "softplus": True, "both": True}
    operands = draw([5, 4], ragged=True, dim=17, state=5, dtype=torch.bfloat16, **everything)
    triton_scan.forward(operands)
    triton_scan.backward(operands.u, operands)
    taps = (torch.empty(17, 4), torch.empty(17), operands.cu_seqlens)
    triton_conv.forward(operands.u, *taps)
    triton_conv.backward(operands.u, operands.u, *taps)
    triton_scan.forward(draw([5], strided=True))


if __name__ == "__main__":
    main()
