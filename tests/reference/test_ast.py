"""YuanGongND/ast with timm 0.4.5: the numbers its own code gave."""

import pytest
import torch
from torch.testing import assert_close

import melastic
from tests.oracles.fill import filled, spectrogram
from tests.reference.cases import cases


@pytest.mark.parametrize("case", cases("ast"))
def test_a_converted_ast_gives_the_official_logits(case):
    frames, config = case["frames"], case["config"]
    state = filled(case["shapes"], seed=5)
    model = melastic.from_official(state, origin="ast", input_size=(128, config["frames"]))
    assert model.config.patches.stride == (config["fstride"], config["tstride"])
    with torch.no_grad():
        logits = model(spectrogram(frames, 128, batch=2).transpose(1, 2))
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)
