"""Training of models that attend in windows of folded clips."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

import melastic
from melastic.errors import InputError
from melastic.frontend.normalize import normalise
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.config import ModelChoice
from melastic.training.curriculum import Draws
from melastic.training.loop import Trainer
from melastic.training.phases import phase_of
from tests.training.test_resume import settings


def folding(manifest, **sections):
    """A small HTS-AT on tones of half a second."""
    model = ModelChoice.of(
        "htsat-nano",
        dim=8,
        depths=(1, 2),
        num_heads=1,
        window=4,
        sample_rate=16_000,
        input_size=(32, 32),
        bands=2,
    )
    return replace(settings(manifest, batch_tokens=600), model=model, view=View(), **sections)


@pytest.mark.parametrize("operator", ["hop", "mean", "max", "patch"])
def test_a_window_encoder_is_trained_from_coarse_to_fine(tones, tmp_path, operator):
    config = folding(tones, phases=(phase_of(f"{operator}2:1"), phase_of("full:1")))
    model = train(config, tmp_path)
    assert model.config.patches.patch == (4, 4)
    assert model.config.patches.fold.frames == 16
    loaded = melastic.load(tmp_path)
    clip = loaded.spectrogram(tones.parent / "low_0.wav")
    assert torch.equal(loaded([clip]), model.cpu().eval()([clip]))
    assert loaded.frames([clip])[0].shape[1] == 3


@pytest.mark.parametrize("sections", [{"view": View(keep=0.5)}, {"draws": Draws(keep=(0.5, 1.0))}])
def test_a_window_encoder_keeps_all_tokens(tones, tmp_path, sections):
    config = replace(folding(tones), **sections)
    with pytest.raises(InputError, match="a window encoder reads all patches of a clip, got"):
        train(config, tmp_path / "run")


def test_clips_are_read_in_training_as_the_trained_model_reads_them(tones, tmp_path):
    trainer = Trainer(folding(tones), tmp_path, Accelerator(cpu=True))
    made_of = trainer.model.config.frontend
    assert made_of.slaney is not None
    assert made_of.window_ms == 32
    for features in (trainer.clips.features, trainer.held_out):
        statistics = {"mean": features.frontend.mean, "std": features.frontend.std}
        assert features.frontend == replace(made_of, **statistics)
        seen = normalise(features[0], made_of)
        assert torch.equal(seen, trainer.model.spectrogram(features.clips[0].path))
