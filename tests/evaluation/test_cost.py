import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from melastic.evaluation.cost import gmacs, tokens_of
from melastic.patches.grid import FreqTime
from tests.models import MELS, MODELS, small

CLIPS = 400
"""As many as make what is done once for a batch (resizing a kernel, reading positions) small."""


def counted(model, frames, patch=None, kept=None):
    """Multiply-adds (10^9) of one of many equal clips, as torch counts them."""
    plain = sdpa_kernel(SDPBackend.MATH)  # the fused kernel of a CPU is not counted
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        model(torch.randn(CLIPS, MELS, frames), patch, kept=kept)
    return counter.get_total_flops() / 2e9 / CLIPS


@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds_are_those_that_torch_counts(name):
    model = MODELS[name]().eval()
    for frames in (20, 131):
        expected = counted(model, frames)
        assert gmacs(model.config, FreqTime(MELS, frames)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("patch", [(8, 8), (24, 24), (32, 5)])
@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_multiply_adds_of_a_view_are_those_that_torch_counts(patch, keep):
    model, size, patch = small("class").eval(), FreqTime(MELS, 60), FreqTime(*patch)
    tokens = tokens_of(model.config, size, patch=patch, keep=keep) - 1
    kept = [torch.arange(tokens)] * CLIPS
    expected = counted(model, 60, patch, kept)
    assert gmacs(model.config, size, patch=patch, keep=keep) == pytest.approx(expected, rel=0.01)


def test_tokens_are_patches_and_class_tokens():
    size = FreqTime(MELS, 60)
    assert tokens_of(small("mean").config, size) == 2 * 4
    assert tokens_of(small("class+distillation").config, size) == 2 * 4 + 2
