"""torchaudio 2.11's Kaldi filter bank with AST's settings: the numbers it gave."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import melastic
from tests.reference.cases import cases


def synthesised(sr, sec, f0, f1, amp):
    t = np.arange(int(sr * sec)) / sr
    chirp = amp * np.sin(2 * np.pi * (f0 * t + (f1 - f0) * t**2 / (2 * sec)))
    return torch.from_numpy(chirp + 0.05 * np.sin(2 * np.pi * 1234.5 * t)).float()


@pytest.mark.parametrize("case", cases("fbank"))
def test_log_mels_are_those_of_kaldi(case, request):
    if case["synth"] is not None:
        waveform = synthesised(**case["synth"])
    else:
        path = request.getfixturevalue("data_folder") / case["name"]
        if not path.is_file():
            pytest.skip(f"{case['name']} is not on this machine")
        waveform = melastic.load_audio(path, sample_rate=case["sr"])
    log_mels = melastic.log_mel(
        waveform,
        sample_rate=case["sr"],
        hop_ms=case["frame_shift_ms"],
        num_mels=case["bins"],
    ).T
    assert log_mels.shape == (case["frames"], case["bins"])
    values = log_mels[case["frame_index"]][:, case["bin_index"]]
    official = torch.tensor(case["values"])
    assert_close(values, official, atol=2e-3, rtol=0)
    assert (values - official).abs().mean() < 2e-4
    assert log_mels.mean().item() == pytest.approx(case["mean"], abs=1e-3)
    assert log_mels.std().item() == pytest.approx(case["std"], abs=1e-3)
