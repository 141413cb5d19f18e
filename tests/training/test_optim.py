import math

import pytest
import torch
from torch import nn

from melastic.training.config import OptimConfig
from melastic.training.optim import WeightAverage, build_optimizer, learning_rate
from tests.models import mamba, small


def rates(total=100, per_epoch=10, **settings):
    config = OptimConfig(lr=1.0, **settings)
    return [learning_rate(config, s, total=total, per_epoch=per_epoch) for s in range(total)]


def test_warm_up_rises_in_a_straight_line_and_cosine_falls_to_zero():
    course = rates(warmup_steps=20)
    assert course[:20] == pytest.approx([(s + 1) / 20 for s in range(20)])
    assert course[20:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * s / 80) for s in range(80)])
    assert course[-1] < 0.001


def test_the_step_schedule_decays_at_its_milestones():
    course = rates(warmup_steps=0, schedule="step", milestones=(2, 5), decay=0.1)
    assert course[19] == 1
    assert course[20] == course[49] == pytest.approx(0.1)
    assert course[50] == pytest.approx(0.01)


def test_a_constant_rate_stays():
    assert set(rates(warmup_steps=0, schedule="constant")) == {1.0}


@pytest.mark.parametrize("make", [lambda: small("class"), mamba])
def test_only_what_multiplies_tokens_decays(make):
    model = make()
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = build_optimizer(model, OptimConfig()).param_groups
    assert decayed["weight_decay"] > 0
    assert plain["weight_decay"] == 0
    decayed, plain = ({names[id(p)] for p in group["params"]} for group in (decayed, plain))
    assert decayed | plain == set(names.values())
    assert not decayed & plain
    assert all(name.endswith(("weight", "kernel", "taps")) for name in decayed)
    assert not any("norm" in name for name in decayed)
    assert any("positions" in name for name in plain)
    assert any("class_tokens" in name for name in plain)


@pytest.mark.parametrize("average", ["ema", "tail", "none"])
def test_averages_are_what_their_names_say(average):
    model = nn.Linear(1, 1, bias=False)
    config = OptimConfig(average=average, ema_decay=0.9, tail_epochs=3, epochs=6)
    kept = WeightAverage(model, config)
    expected, seen = model.weight.item(), []
    for epoch in range(6):
        for step in range(4 * epoch, 4 * epoch + 4):
            model.weight.data.fill_(float(step))
            kept.after_step(model, step)
            memory = min(0.9, (1 + step) / (10 + step))
            expected = memory * expected + (1 - memory) * step
        kept.after_epoch(model, epoch)
        seen.append(float(step))
    oracle = {"ema": expected, "tail": sum(seen[-3:]) / 3, "none": seen[-1]}[average]
    assert kept.weights["weight"].item() == pytest.approx(oracle, rel=1e-5)
    with kept.swapped(model):
        assert model.weight.item() == pytest.approx(oracle, rel=1e-5)
    assert model.weight.item() == seen[-1]
    assert isinstance(model.weight, nn.Parameter)
    assert torch.is_tensor(kept.weights["weight"])
