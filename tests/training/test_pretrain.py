"""Runs of masked pretraining, and what starts from them."""

import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import interpolate
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import melastic
from melastic.classifier import Classifier
from melastic.data.loader import Batch
from melastic.errors import InputError
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.config import ModelChoice, PretrainConfig
from melastic.training.curriculum import Draws
from melastic.training.loop import Trainer
from melastic.training.masked import MaskedModel
from melastic.training.masked_objective import MaskedObjective
from melastic.training.masks import Masking
from melastic.training.phases import phase_of
from melastic.training.run_folder import read_run_config
from melastic.training.settings import pretraining_of
from tests.models import MELS, mamba, small, windows
from tests.training.test_resume import same, settings, stop_after, weights
from tests.training.test_two_processes import launch, rows


@pytest.fixture(scope="module")
def unlabelled(tones):
    """The tones in a manifest that says nothing of what they are."""
    lines = [line.split(",") for line in tones.read_text().splitlines()]
    manifest = tones.parent / "unlabelled.csv"
    manifest.write_text("\n".join(f"{name},{split}" for name, _, split in lines) + "\n")
    return manifest


def hiding(manifest, **sections):
    """Settings of a small pretraining."""
    return replace(pretraining_of(settings(manifest)), **sections)


def test_clips_without_labels_train_an_encoder_without_a_head(unlabelled, tmp_path):
    config = hiding(unlabelled)
    model = train(config, tmp_path)
    assert model.labels == ()
    found = rows(tmp_path)
    assert found[-1]["val"]["loss"] < found[0]["val"]["loss"]
    for row in found:
        weighed = row["val"]["discriminative"] + 10 * row["val"]["generative"]
        assert row["val"]["loss"] == pytest.approx(weighed, rel=1e-5)
        mean_over_clips = row["discriminative"] + 10 * row["generative"]
        assert row["loss"] == pytest.approx(mean_over_clips, rel=0.05), "a mean over steps"
        assert 0 <= row["accuracy"] <= 1
    assert read_run_config(tmp_path) == config
    names = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not [name for name in names if "head" in name or "mask" in name]
    loaded = melastic.load(tmp_path)
    clip = loaded.spectrogram(unlabelled.parent / "low_0.wav")
    assert loaded.embed([clip]).shape == (1, 16)
    with pytest.raises(InputError, match=r"has no head.*--init RUN"):
        loaded.classify(unlabelled.parent / "low_0.wav")


def test_a_trained_classifier_starts_from_it(tones, unlabelled, tmp_path):
    pretrained = train(hiding(unlabelled), tmp_path / "before")
    config = settings(tones, lr=1e-12, weight_decay=0.0, epochs=1)
    config = replace(config, model=replace(config.model, init=str(tmp_path / "before")))
    model = train(config, tmp_path / "after")
    own, given = model.state_dict(), pretrained.state_dict()
    for name, value in given.items():
        assert_close(own[name], value, atol=1e-7, rtol=1e-7)
    assert {name.split(".")[0] for name in own.keys() - given.keys()} == {"head"}
    assert model.config.frontend == pretrained.config.frontend


@pytest.mark.parametrize("average", ["ema", "none"])
def test_a_pretraining_that_is_stopped_resumes_to_the_same_weights_and_records(
    unlabelled, tmp_path, monkeypatch, average
):
    config = hiding(unlabelled, optim=replace(settings(unlabelled).optim, average=average))
    train(config, tmp_path / "whole")
    stop_after(4, config, tmp_path / "stopped", monkeypatch)
    train(config, tmp_path / "stopped", resume=True)
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    timed = ("clips_per_s", "elapsed_s", "data_s", "compute_s", "peak_mb")
    for one, other in zip(rows(tmp_path / "stopped"), rows(tmp_path / "whole"), strict=True):
        for name in one.keys() - set(timed):
            assert one[name] == pytest.approx(other[name]), name


def test_pretraining_goes_from_coarse_to_fine_with_the_share_hidden_kept(unlabelled, tmp_path):
    config = hiding(unlabelled, phases=(phase_of("hop2:1"), phase_of("full:2")))
    model = train(config, tmp_path)
    assert model.config.frontend.hop_ms == 10
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert 0.1 < ledger["saved_gmacs"] < 0.8
    coarse = load_file(tmp_path / "phase-1" / "state" / "state.safetensors")
    trainer = Trainer(
        config, tmp_path / "again", Accelerator(cpu=True), before=tmp_path / "phase-1"
    )
    assert torch.equal(trainer.trained.mask_token, coarse["average/mask_token"])
    assert torch.equal(trainer.trained.tell[2].weight, coarse["average/tell.2.weight"])


def test_a_phase_of_narrower_patches_starts_from_heads_of_the_wider_ones(unlabelled, tmp_path):
    config = hiding(unlabelled, phases=(phase_of("patch2:1"), phase_of("full:1")))
    train(config, tmp_path)
    before = load_file(tmp_path / "phase-1" / "state" / "state.safetensors")
    again = Trainer(config, tmp_path / "again", Accelerator(cpu=True), before=tmp_path / "phase-1")
    patch = again.model.config.patches.patch
    wide = before["average/draw.2.bias"].view(1, 1, patch.freq, 2 * patch.time)
    narrow = interpolate(wide, tuple(patch), mode="bilinear", antialias=True)
    assert_close(again.trained.draw[2].bias, narrow.flatten())
    assert torch.equal(again.trained.tell[0].weight, before["average/tell.0.weight"])


@pytest.mark.parametrize("preset", ["aum-nano", "htsat-nano"])
def test_every_kind_of_encoder_is_pretrained_and_trained_on(tones, unlabelled, tmp_path, preset):
    sizes = {"dim": 16, "depth": 1, "patch": 16, "input_size": (128, 50), "num_heads": 1}
    if preset == "htsat-nano":
        sizes = {"dim": 8, "depths": (1, 1), "num_heads": 1, "window": 4, "input_size": (32, 32)}
        sizes |= {"sample_rate": 16_000, "bands": 2}
    choice = ModelChoice.of(preset, **sizes)
    optim = replace(settings(tones).optim, batch_tokens=2000, epochs=2)
    train(hiding(unlabelled, model=choice, optim=optim), tmp_path / "before")
    config = replace(settings(tones), optim=optim, view=View())
    config = replace(config, model=replace(choice, init=str(tmp_path / "before")))
    assert train(config, tmp_path / "after").labels == ("high", "low", "middle")


def test_two_processes_pretrain_as_one_does(unlabelled, tmp_path):
    config = hiding(unlabelled)
    config = replace(
        config,
        model=replace(
            config.model, architecture=replace(config.model.architecture, pooling="attention")
        ),
    )
    train(config, tmp_path / "one")
    done = launch(config, tmp_path / "two", processes=2, verb="pretrain")
    assert done.returncode == 0, done.stderr
    for alone, shared in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in ("loss", "discriminative", "generative", "accuracy", "train_gmacs"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-3), name
        assert shared["val"]["loss"] == pytest.approx(alone["val"]["loss"], rel=1e-3)


@pytest.mark.parametrize("make", [small, mamba, windows])
def test_the_ledger_equals_torchs_counter(make):
    clips, frames = 200, 57
    headless = Classifier(replace(make().config, labels=()))
    model = MaskedModel(headless, Masking()).train()
    config = PretrainConfig(name="tones")
    objective = MaskedObjective(config, model, headless.config)
    batch = batch_of(clips, frames)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective.losses(batch, 0, 0).sum().backward()
    counted = counter.get_total_flops() / 2e9
    assert objective.ledger.costs.train_gmacs == pytest.approx(counted, rel=0.01)
    objective.held_out(batch)
    assert objective.ledger.costs.train_gmacs == pytest.approx(counted, rel=0.01), "not counted"


def batch_of(clips, frames):
    return Batch(
        frames=torch.randn(MELS, clips * frames),
        lengths=(frames,) * clips,
        targets=torch.zeros(clips, 0),
        indices=tuple(range(clips)),
        steps_ms=(10.0,) * clips,
    )


def test_masks_change_from_step_to_step_and_never_for_held_out_clips():
    headless = Classifier(replace(small().config, labels=()))
    model = MaskedModel(headless, Masking())
    objective = MaskedObjective(PretrainConfig(name="tones"), model, headless.config)
    batch = batch_of(3, 57)
    with torch.no_grad():
        first, again = (objective.losses(batch, epoch, 5) for epoch in (0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, objective.losses(batch, 0, 6))
        assert torch.equal(objective.held_out(batch), objective.held_out(batch))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"view": View(keep=0.5)}, "leave view.keep"),
        ({"draws": Draws(patches=(8, 16))}, "draws.patches out"),
        ({"draws": Draws(keep=(0.5, 1.0))}, "draws.keep"),
    ],
)
def test_what_pretraining_cannot_do_is_refused(tones, sections, words):
    with pytest.raises(InputError, match=words):
        hiding(tones, **sections)


def test_scores_of_classes_choose_no_pretraining(tones):
    config = hiding(tones)
    for changed in (
        {"run": replace(config.run, choose_by="mAP")},
        {"data": replace(config.data, test="split=test")},
    ):
        with pytest.raises(InputError, match="pretraining"):
            replace(config, **changed)
