"""From coarse to fine: what passes from phase to phase, and what it costs."""

import json
import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as settings_of_search
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import melastic
from melastic.checkpoints.transfer import transfer
from melastic.errors import InputError
from melastic.evaluation.cost import tokens_of
from melastic.patches.dials import Pooling
from melastic.patches.grid import FreqTime
from melastic.patches.view import View
from melastic.training.coarse_to_fine import phase_config, phases_of, train
from melastic.training.config import ModelChoice, OptimConfig, TrainConfig
from melastic.training.curriculum import Curriculum, Draws
from melastic.training.ledger import Ledger, reference_config
from melastic.training.loop import Trainer
from melastic.training.optim import learning_rate
from melastic.training.phases import Passing, Phase, phase_of, phase_text, phases_in
from tests.models import MELS, mamba, small, windows
from tests.training.test_resume import last_step, same, settings, weights

WRITTEN = ["hop4:10", "hop1.5:3", "mean2:5", "max4:1@0.001", "patch2:7", "full:20"]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_phase_is_read_as_it_is_written(text):
    assert phase_text(phase_of(text)) == text


@pytest.mark.parametrize(
    "text", ["", "hop4:", "hop:4:1", "skip2:3", "hop0.5:3", "max1.5:3", "hop2:0", "hop2:x"]
)
def test_what_is_no_phase_is_refused(text):
    with pytest.raises(InputError, match=r"try hop|whole factor|epochs of at least 1") as caught:
        phase_of(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operator", ["hop", "mean", "max", "patch"])
def test_every_operator_gives_as_many_fewer_tokens(tones, tmp_path, operator):
    config = settings(tones)
    coarse = Phase(operator=operator, factor=2, epochs=1)
    config = replace(config, phases=(coarse, Phase(epochs=1)), view=View())
    models = [
        melastic.create_model(
            "ast-nano",
            num_classes=2,
            **{
                name: getattr(phase_config(config, i).model.architecture, name)
                for name in ("patch", "stride", "input_size", "hop_ms")
            },
        )
        for i in range(2)
    ]
    cells = [model.config.positions.grid.time for model in models]
    extents = [model.config.positions.extent for model in models]
    assert cells == [7, 13]
    assert extents[0][1] == pytest.approx(extents[1][1], abs=0.05)
    views = [phase_config(config, i).view for i in range(2)]
    assert views[1] == View()
    if operator in ("mean", "max"):
        assert views[0] == View(hop_ms=10.0, pooling=Pooling(kind=operator, factor=2))


@pytest.mark.parametrize(
    ("text", "step_ms"), [("hop2:1", 10.0), ("mean2:1", 20.0), ("full:1", 5.0)]
)
def test_a_phase_is_coarser_than_the_runs_own_view(tones, text, step_ms):
    pooled = Pooling(factor=2) if text == "mean2:1" else Pooling()
    config = replace(settings(tones), phases=(phase_of(text),), view=View(hop_ms=5, pooling=pooled))
    assert phase_config(config, 0).view.step_ms(10.0) == step_ms


@pytest.mark.parametrize(
    "make", [lambda: small("class"), mamba, lambda: small("attention"), windows]
)
def test_a_phase_change_at_equal_resolution_leaves_the_logits(make):
    source, target, clips = make(), make(), [torch.randn(MELS, 40), torch.randn(MELS, 60)]
    assert transfer(source, target) == []
    assert torch.equal(source(clips), target(clips))


@pytest.mark.parametrize("phases", [("hop2:1", "full:1"), ("mean2:1", "patch2:1", "full:2")])
def test_a_run_in_phases_leaves_one_model_and_a_ledger(tones, tmp_path, phases):
    config = replace(settings(tones), phases=tuple(map(phase_of, phases)))
    model = train(config, tmp_path)
    assert model.config.frontend.hop_ms == 10
    assert model.config.patches.patch == (128, 4)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert [row["epochs"] for row in ledger["phases"]] == [phase.epochs for phase in config.phases]
    assert ledger["train_gmacs"] == sum(row["train_gmacs"] for row in ledger["phases"])
    per_epoch = [row["train_gmacs"] / row["epochs"] for row in ledger["phases"]]
    assert per_epoch[0] < 0.7 * per_epoch[-1]
    assert 0 < ledger["saved_gmacs"] < 1
    assert not (tmp_path / "ledger.json.part").exists()


def test_a_run_that_is_stopped_in_any_phase_resumes_to_the_same_weights(
    tones, tmp_path, monkeypatch
):
    config = replace(settings(tones), phases=(phase_of("hop2:2"), phase_of("full:2")))
    train(config, tmp_path / "whole")
    step = Trainer._step
    for stop in (1, 2, 3, 5):
        folder, count = tmp_path / f"stopped{stop}", 0

        def stopping(self, *args, stop=stop):
            nonlocal count
            count += 1
            if count > stop:
                raise KeyboardInterrupt
            return step(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_step", stopping)
            try:
                train(config, folder)
                raise AssertionError("the run was not stopped")
            except KeyboardInterrupt:
                pass
        train(config, folder, resume=True)
        assert same(weights(folder), weights(tmp_path / "whole"))
        costs = [json.loads((f / "ledger.json").read_text()) for f in (folder, tmp_path / "whole")]
        assert costs[0]["train_gmacs"] == pytest.approx(costs[1]["train_gmacs"])


def test_weights_pass_from_phase_to_phase(tones, tmp_path):
    config = replace(settings(tones), phases=(phase_of("hop2:1"), phase_of("full:1@1e-12")))
    train(config, tmp_path)
    before = load_file(tmp_path / "phase-1" / "model" / "model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    kept = [name for name, value in before.items() if value.shape == after[name].shape]
    assert "encoder.blocks.0.mlp.0.weight" in kept
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in kept)
    assert before["positions.table"].shape[1] == 7
    assert after["positions.table"].shape[1] == 13


def test_passing_can_leave_positions_new_and_carry_the_optimiser(tones, tmp_path):
    phases = (phase_of("hop2:1"), phase_of("full:1"))
    config = replace(settings(tones), phases=phases)
    runs = {}
    for name, passing in (
        ("usual", Passing()),
        ("positions", Passing(positions="new")),
        ("optimizer", Passing(optimizer="carried")),
        ("schedule", Passing(schedule="continued")),
    ):
        train(replace(config, passing=passing), tmp_path / name)
        runs[name] = weights(tmp_path / name)
    for name in ("positions", "optimizer", "schedule"):
        assert not same(runs[name], runs["usual"])


def test_a_continued_schedule_is_one_curve_over_all_phases(tones):
    config = settings(tones, warmup_steps=0)
    config = replace(
        config,
        phases=(phase_of("hop2:4"), phase_of("full:6")),
        passing=Passing(schedule="continued"),
    )
    parts = [phase_config(config, i).optim for i in range(2)]
    whole = replace(config.optim, epochs=10)
    rates = [learning_rate(parts[0], i, total=40, per_epoch=10) for i in range(40)]
    rates += [learning_rate(parts[1], i, total=60, per_epoch=10) for i in range(60)]
    wanted = [learning_rate(whole, i, total=100, per_epoch=10) for i in range(100)]
    assert rates == pytest.approx(wanted)


def test_a_held_rate_stays_at_its_peak_until_the_last_phase(tones):
    config = replace(settings(tones), phases=tuple(map(phase_of, ("hop4:1", "hop2:1", "full:1"))))
    schedules = {}
    for name in ("anew", "held"):
        passed = replace(config, passing=Passing(schedule=name))
        schedules[name] = [phase_config(passed, i).optim.schedule for i in range(3)]
    assert schedules["anew"] == ["cosine"] * 3
    assert schedules["held"] == ["constant", "constant", "cosine"]
    own = replace(config.phases[0], schedule="step")
    own = replace(config, phases=(own, *config.phases[1:]), passing=Passing(schedule="held"))
    assert phase_config(own, 0).optim.schedule == "step"


def test_coarse_steps_hold_as_many_clips_or_as_many_tokens(tones, tmp_path):
    config = settings(tones, batch_tokens=40)
    config = replace(config, phases=(phase_of("hop2:1"), phase_of("full:1")), view=View())
    steps = {}
    for name in ("clips", "tokens"):
        train(replace(config, passing=Passing(batch=name)), tmp_path / name)
        steps[name] = [last_step(tmp_path / name / part) for part in ("phase-1", ".")]
    assert steps["clips"][0] == steps["clips"][1] == steps["tokens"][1]
    assert steps["tokens"][0] < 0.7 * steps["tokens"][1]


def test_a_phase_with_a_budget_of_its_own_keeps_it(tones):
    config = replace(settings(tones), phases=(phase_of("hop4:1"), phase_of("full:1")))
    own = replace(config.phases[0], batch_tokens=500, warmup_steps=7)
    optim = phase_config(replace(config, phases=(own, config.phases[1])), 0).optim
    assert (optim.batch_tokens, optim.warmup_steps) == (500, 7)


@pytest.mark.parametrize(
    ("passing", "steps"),
    [
        (Passing(), 34),
        (Passing(warmup="each"), 100),
        (Passing(schedule="anew"), 34),
        (Passing(schedule="continued"), 100),
    ],
)
def test_phases_share_the_warm_up_of_a_single_phase(tones, passing, steps):
    config = replace(settings(tones, epochs=3, warmup_steps=100), phases=phases_in("3-phase"))
    config = replace(config, passing=passing)
    assert [phase_config(config, i).optim.warmup_steps for i in range(3)] == [steps] * 3
    alone = replace(config, phases=(phase_of("full:3"),))
    assert phase_config(alone, 0).optim.warmup_steps == 100


def test_drawn_views_come_in_over_all_phases_as_they_would_in_one(tones):
    draws = Draws(patches=(8, 16), ramp_epochs=8, share=0.5)
    config = replace(settings(tones, epochs=9), draws=draws, phases=phases_in("3-phase"))
    whole = Curriculum(View(), draws, seed=0)
    for number in range(3):
        part = Curriculum(View(), phase_config(config, number).draws, seed=0)
        for epoch, step in product(range(3), range(50)):
            drawn = part.patch(epoch, step) is None
            assert drawn == (whole.patch(3 * number + epoch, step) is None)


@settings_of_search(max_examples=60, deadline=None)
@example(frames=289, factor=1.5, operator="hop", preset="htsat-nano")
@given(
    frames=st.integers(1, 4000),
    factor=st.sampled_from([1.1, 1.5, 2, 3, 4]),
    operator=st.sampled_from(["hop", "mean", "patch"]),
    preset=st.sampled_from(["ast-nano", "aum-nano", "htsat-nano"]),
)
def test_a_clip_that_fits_a_step_at_full_resolution_fits_a_coarse_one(
    frames, factor, operator, preset
):
    factor = factor if operator == "hop" else math.ceil(factor)
    model = ModelChoice.of(preset)
    config = TrainConfig(name="", model=model, phases=(Phase(operator=operator, factor=factor),))
    bins = model.architecture.input_size[0]
    longest = tokens_of(reference_config(model.architecture), FreqTime(bins, frames))
    coarse = phase_config(replace(config, optim=OptimConfig(batch_tokens=longest)), 0)
    fewer = frames if operator == "patch" else math.ceil(frames / factor)
    own = tokens_of(reference_config(coarse.model.architecture), FreqTime(bins, fewer))
    assert own <= coarse.optim.batch_tokens <= longest / factor + own + 1


@pytest.mark.parametrize("operator", ["hop", "mean", "patch"])
def test_phases_serve_models_that_drop_what_fills_no_patch(operator):
    model = ModelChoice.of("ast-nano", remainder="crop")
    phases = (Phase(operator=operator, factor=2),)
    config = TrainConfig(
        name="", model=model, phases=phases, optim=OptimConfig(batch_tokens=8 * 62 + 1)
    )
    assert phase_config(config, 0).optim.batch_tokens == 249 + 9


def test_phases_draw_differently_and_only_the_last_is_tested(tones, tmp_path):
    config = replace(settings(tones), phases=(phase_of("hop2:1"), phase_of("full:1")))
    (first, own), (last, folder) = phases_of(config, tmp_path)
    assert (own, folder) == (tmp_path / "phase-1", tmp_path)
    assert first.run.seed != last.run.seed
    assert first.data.test is None
    assert last.data.test == "split=test"


@pytest.mark.parametrize(
    "make", [lambda: small("class"), lambda: small("attention"), mamba, windows]
)
def test_the_ledger_equals_torchs_counter(make):
    model, clips, frames = make().train(), 200, 57
    x = torch.randn(clips, MELS, frames)
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    ledger = Ledger(model.config)
    ledger.add([frames] * clips, None, None)
    assert ledger.costs.clips == clips
    assert ledger.costs.train_gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=0.01)
    if model.config.patches.fold is not None:
        return
    kept = [torch.arange(3)] * clips
    ledger.add([frames] * clips, FreqTime(16, 8), kept)
    assert ledger.costs.tokens == clips * (
        model.config.patches.grid(FreqTime(MELS, frames)).num_patches
        + 3
        + 2 * model.config.pooling.added
    )


@pytest.mark.parametrize("span", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)])
def test_a_span_is_a_part_of_the_schedule(span):
    with pytest.raises(InputError, match="part of the schedule"):
        OptimConfig(span=span)
