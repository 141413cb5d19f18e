import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from melastic.evaluation.cost import gmacs, tokens_of
from melastic.patches.grid import FreqTime
from tests.models import COMBINATIONS, MELS, small


@pytest.mark.parametrize(("pooling", "patch", "positions"), COMBINATIONS)
@pytest.mark.parametrize("frames", [20, 60, 131])
def test_multiply_adds_are_those_that_torch_counts(pooling, patch, positions, frames):
    model = small(pooling, patch, positions).eval()
    plain = sdpa_kernel(SDPBackend.MATH)  # the fused kernel of a CPU is not counted
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        model([torch.randn(MELS, frames)])
    counted = counter.get_total_flops() / 2e9
    assert gmacs(model.config, FreqTime(MELS, frames)) == pytest.approx(counted, rel=0.01)


def test_tokens_are_patches_and_class_tokens():
    size = FreqTime(MELS, 60)
    assert tokens_of(small("mean").config, size) == 2 * 4
    assert tokens_of(small("class+distillation").config, size) == 2 * 4 + 2
