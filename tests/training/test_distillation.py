"""Learning from the scores of another model, or of the model itself at its own patch size."""

from dataclasses import replace

import pytest
import torch

import melastic
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs
from melastic.patches.grid import FreqTime
from melastic.patches.view import View
from melastic.training.coarse_to_fine import train
from melastic.training.config import Distillation
from melastic.training.curriculum import Draws
from melastic.training.phases import phases_in
from tests.training.test_curriculum import flexible, trainer
from tests.training.test_resume import settings


@pytest.fixture
def teacher(tones, tmp_path):
    train(settings(tones, epochs=1), tmp_path / "teacher")
    return tmp_path / "teacher"


def test_a_teachers_scores_are_followed_by_cross_entropy(tones, tmp_path, teacher):
    base = replace(settings(tones), view=View())
    model = replace(base.model, init=str(teacher))
    heat = Distillation(teacher=str(teacher), weight=0.3, temperature=2.0)
    run = trainer(replace(base, model=model, distill=heat), tmp_path / "run")
    plain = trainer(replace(base, model=model), tmp_path / "plain")
    batch = run.clips[0, [0, 3, 5]]
    logits = run.model(batch.spectrograms)
    target = melastic.load(teacher)(batch.spectrograms)
    follow = -((target / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1) * 4
    expected = 0.7 * plain.objective.losses(batch, 0, 0) + 0.3 * follow
    torch.testing.assert_close(run.objective.losses(batch, 0, 0), expected)
    costs = [one.objective.ledger.costs.train_gmacs for one in (run, plain)]
    heard = [gmacs(run.objective.teacher.config, FreqTime(128, n)) for n in batch.lengths]
    assert costs[0] - costs[1] == pytest.approx(sum(heard))


def test_a_teacher_of_other_statistics_hears_what_it_was_trained_on(tones, tmp_path, teacher):
    trained = melastic.load(teacher)
    frontend = replace(trained.config.frontend, mean=-2.0, std=7.0)
    trained.config = replace(trained.config, frontend=frontend)
    trained.save(tmp_path / "other")
    base = replace(settings(tones), view=View())
    heat = Distillation(teacher=str(tmp_path / "other"), weight=1.0)
    run = trainer(replace(base, distill=heat), tmp_path / "run")
    batch = run.clips[0, [0, 3, 5]]
    ours = run.model.config.frontend
    raw = [clip * 2 * ours.std + ours.mean for clip in batch.spectrograms]
    target = trained([(clip - frontend.mean) / (2 * frontend.std) for clip in raw])
    logits = run.model(batch.spectrograms)
    expected = -(target.softmax(1) * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(run.objective.losses(batch, 0, 0), expected)


def test_a_model_that_teaches_itself_counts_each_clip_once(tones, tmp_path):
    base = flexible(tones, Draws(patches=(FreqTime(16, 16),)))
    run = trainer(replace(base, view=View(), distill=Distillation(weight=0.5)), tmp_path / "run")
    batch = run.clips[0, [0, 3, 5]]
    run.objective.losses(batch, 0, 0)
    patches = (FreqTime(16, 16), None)
    both = [
        gmacs(run.model.config, FreqTime(128, n), patch=patch)
        for n in batch.lengths
        for patch in patches
    ]
    assert run.objective.ledger.costs.clips == 3
    assert run.objective.ledger.costs.train_gmacs > 2 * sum(both)


def test_a_model_teaches_itself_at_other_patch_sizes(tones, tmp_path):
    base = flexible(tones, Draws(patches=(FreqTime(16, 16),)))
    base = replace(base, view=View(), distill=Distillation(weight=0.5))
    run = trainer(base, tmp_path / "run")
    batch = run.clips[0, [0, 3, 5]]
    small = run.objective._logits(batch, 0, 0, FreqTime(16, 16))
    own = run.objective._logits(batch, 0, 0, FreqTime(128, 4))
    follow = -(own.detach().softmax(1) * small.log_softmax(1)).sum(1)
    label = run.objective._labelled
    expected = (0.5 * label(small, batch) + 0.5 * follow + label(own, batch)) / 2
    torch.testing.assert_close(run.objective.losses(batch, 0, 0), expected)


def test_a_teacher_must_know_the_labels_and_read_the_same_spectrograms(tones, tmp_path, teacher):
    base = settings(tones)
    other = replace(base, distill=Distillation(teacher="digits", weight=0.5))
    with pytest.raises(InputError, match="must know the same labels"):
        train(other, tmp_path / "labels")
    coarse = replace(base.model, architecture=replace(base.model.architecture, sample_rate=8000))
    heard = Distillation(teacher=str(teacher), weight=0.5)
    with pytest.raises(InputError, match="must read the same spectrograms, its sample_rate"):
        train(replace(base, model=coarse, distill=heard), tmp_path / "rate")


def test_a_teacher_that_cannot_read_the_shortest_stretch_is_refused_before_a_run_begins(
    tones, tmp_path, teacher
):
    trained = melastic.load(teacher)
    patches = replace(trained.config.patches, remainder="crop")
    trained.config = replace(trained.config, patches=patches)
    trained.save(tmp_path / "crops")
    heat = Distillation(teacher=str(tmp_path / "crops"), weight=0.5)
    short = replace(settings(tones), distill=heat, draws=Draws(seconds=(0.02, 0.2)))
    with pytest.raises(InputError, match="holds no whole patch"):
        train(short, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_distillation_that_would_do_nothing_is_refused(tones):
    with pytest.raises(InputError, match="nothing is learned from it"):
        Distillation(teacher="digits")
    with pytest.raises(InputError, match="teaches itself at other patch sizes"):
        replace(settings(tones), distill=Distillation(weight=0.5))
    own = Draws(patches=(FreqTime(128, 4),))
    with pytest.raises(InputError, match="teaches itself at other patch sizes"):
        replace(settings(tones), draws=own, distill=Distillation(weight=0.5))
    taught = replace(settings(tones), distill=Distillation(teacher="digits", weight=0.5))
    with pytest.raises(InputError, match="phases by hop change it"):
        replace(taught, phases=phases_in("2-phase"))


def test_a_teacher_of_another_frame_shift_is_refused(tones, tmp_path, teacher):
    base = settings(tones)
    architecture = replace(base.model.architecture, hop_ms=20.0)
    other = replace(base, model=replace(base.model, architecture=architecture))
    other = replace(other, distill=Distillation(teacher=str(teacher), weight=0.5))
    with pytest.raises(InputError, match=r"its hop_ms is 10.0 and the run's is 20.0"):
        train(other, tmp_path / "run")
