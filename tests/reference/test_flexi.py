"""FlexiAST: the numbers its own code gave at several patch sizes."""

import pytest
import torch
from torch.testing import assert_close

import melastic
from tests.oracles.fill import fill, filled, spectrogram
from tests.reference.cases import cases

CASES = cases("flexi")


def converted(case, state):
    config = case["config"]
    return melastic.from_official(
        state,
        origin="flexiast",
        input_size=tuple(config["input_size"]),
        num_heads=config["num_heads"],
    )


@pytest.mark.parametrize("case", CASES)
def test_a_converted_flexiast_gives_the_official_logits(case):
    model = converted(case, filled(case["shapes"], seed=96))
    patch = case["patch"] if isinstance(case["patch"], int) else tuple(case["patch"])
    with torch.no_grad():
        logits = model(spectrogram(case["frames"], 128, batch=2).transpose(1, 2), patch)
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)


def test_kernel_and_positions_of_the_ast_it_came_from_are_left_out():
    case = CASES[0].values[0]
    stale = {
        "v.patch_embed.proj.weight": (96, 1, 8, 8),
        "v.patch_embed.proj.bias": (96,),
        "v.pos_embed": (1, 1025, 96),
        "v.head.weight": (1000, 96),
        "v.head.bias": (1000,),
    }
    state = filled(case["shapes"], seed=96)
    state |= {name: fill(name, shape, seed=96) for name, shape in stale.items()}
    model = converted(case, {f"module.{name}": value for name, value in state.items()})
    with torch.no_grad():
        logits = model(spectrogram(case["frames"], 128, batch=2).transpose(1, 2), case["patch"])
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)
