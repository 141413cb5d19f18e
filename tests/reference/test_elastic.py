"""ElasticAST: the numbers its own code gave for clips of several lengths in one call."""

import pytest
import torch
from torch.testing import assert_close

import melastic
from tests.oracles.fill import filled, spectrogram
from tests.reference.cases import cases


@pytest.mark.parametrize("case", cases("elastic"))
def test_a_converted_elasticast_gives_the_official_logits(case):
    config = case["config"]
    model = melastic.from_official(
        filled(case["shapes"], seed=config["dim"]),
        origin="elasticast",
        num_heads=config["heads"],
        pooling="mean" if config["avg_pool"] else "attention",
    )
    assert model.config.positions.grid == (8, config["sample_size"][1] // 16)
    clips = [spectrogram(frames, 128, 1, seed=i)[0].T for i, frames in enumerate(case["lens"])]
    with torch.no_grad():
        logits = model(clips)
    assert_close(logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)
    one_frame = spectrogram(1, 128, 1, seed=0)[0].T
    padded = torch.nn.functional.pad(one_frame, (0, 15))
    with torch.no_grad():
        assert_close(model([one_frame]), model([padded]))
