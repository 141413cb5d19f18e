"""HTS-AT on real recordings: the recipes of the plain transformer with a window encoder instead."""

from dataclasses import replace

from melastic.recipes.keywords import asc
from melastic.training.config import ModelChoice, OptimConfig, TrainConfig
from melastic.training.phases import Passing


def asc_htsat() -> TrainConfig:
    """Arabic keywords with a small HTS-AT: 4 x 4 patches of 64 mel bins, windows of 8 x 8."""
    base = asc()
    model = ModelChoice.of("htsat-nano", sample_rate=16_000, input_size=(64, 128), bands=1)
    return replace(
        base,
        name="asc-htsat",
        model=model,
        optim=OptimConfig(lr=4e-4, epochs=45, batch_tokens=16_384),
        passing=Passing(),
    )
