"""Models that stretch: one patch size beside many, one hop beside many.

Patches of the first are square, so that their size can vary along both axes. Positions of keywords
start as sines and cosines, without which such a model learns many times slower. The ten-word part:
``--data.train "asc10=1&split=train"`` and its like.
"""

from dataclasses import replace

from melastic.recipes.esc50 import esc50
from melastic.recipes.fsdd import fsdd_loso
from melastic.recipes.keywords import asc
from melastic.training.config import ModelChoice, OptimConfig, TrainConfig
from melastic.training.curriculum import Draws

PATCHES = (8, 10, 12, 16, 20, *2 * (24, 30, 32, 40, 48))
"""FlexiAST's sizes (its evaluation list); large ones, which cost little and are the hardest to
learn, come twice as often."""
MANY_LARGE = (8, 10, 12, 16, 20, 24, 24, 30, 30, 32, 32, *4 * (40,), *4 * (48,))
"""The same sizes, the largest twice as often again."""
COLUMNS = tuple((128, frames) for frames in (2, 3, 4, 5, 6, 8, 10, 12))
"""Patches that span all mel bins, of 20 to 120 ms."""
LONG_COLUMNS = tuple((128, frames) for frames in (4, 6, 8, 10, 12, 16, 20, 24))
"""The same for sounds of several seconds, of 40 to 240 ms."""
LOW_COLUMNS = tuple((64, frames) for frames in (1, 2, 3, 4, 6, 8))
"""The same for 64 mel bins, of 10 to 80 ms."""
HOPS_MS = tuple(10.0 + 2 * i for i in range(16))
"""ElasticAST's frame shifts: q = 1, 1.2, …, 4 times 10 ms."""


def asc_ast() -> TrainConfig:
    """Arabic keywords, square patches of one size, 16 x 16: what flexible models are held to."""
    base = asc()
    return replace(
        base,
        name="asc-ast",
        model=ModelChoice.of(
            "ast-nano", num_heads=4, input_size=(128, 112), pooling="mean", position_init="sincos"
        ),
        augment=replace(base.augment, mixup=0.0, filter_db=6, freq_masks=1, time_masks=1),
        optim=OptimConfig(lr=1.5e-3, epochs=60, batch_tokens=2200),
    )


def asc_flexiast() -> TrainConfig:
    """Arabic keywords at every patch size from 8 to 48: FlexiAST, one size drawn for each step."""
    base = asc_ast()
    return replace(
        base,
        name="asc-flexiast",
        model=ModelChoice.of(
            "flexiast-nano", num_heads=4, input_size=(128, 112), pooling="mean", reading="place"
        ),
        draws=Draws(patches=MANY_LARGE, ramp_epochs=6, share=0.8),
    )


def asc_elasticast() -> TrainConfig:
    """Arabic keywords at frame shifts from 10 to 40 ms, one drawn for each clip: ElasticAST."""
    base = asc_ast()
    return replace(
        base,
        name="asc-elasticast",
        model=ModelChoice.of("elasticast-nano", num_heads=4, input_size=(128, 112)),
        draws=Draws(hops_ms=HOPS_MS, keep=(0.9, 0.9)),
    )


def asc_melastic() -> TrainConfig:
    """Arabic keywords with every dial at once: patch size, frame shift, length, share of tokens.

    Meant to start from a model that knows all patch sizes: ``melastic train asc-melastic --init
    runs/asc-flexiast``. From random weights ten words take twice as many epochs, and forty are
    not learned as well.
    """
    base = asc_ast()
    return replace(
        base,
        name="asc-melastic",
        model=ModelChoice.of("melastic-nano", num_heads=4, input_size=(128, 112), pooling="mean"),
        draws=Draws(
            patches=PATCHES,
            hops_ms=HOPS_MS,
            seconds=(0.8, 1.0),
            keep=(0.7, 1.0),
            ramp_epochs=10,
            share=0.7,
        ),
        optim=replace(base.optim, epochs=40),
    )


def asc_melastic_columns() -> TrainConfig:
    """Arabic keywords with every dial at once, patches that span all mel bins."""
    base = asc()
    return replace(
        base,
        name="asc-melastic-columns",
        draws=replace(asc_melastic().draws, patches=COLUMNS, ramp_epochs=8),
        optim=replace(base.optim, epochs=30),
    )


def fsdd_loso_melastic() -> TrainConfig:
    """Spoken digits of an unheard speaker with every dial at once: fold 1, as fsdd-loso."""
    base = fsdd_loso()
    return replace(
        base,
        name="fsdd-loso-melastic",
        draws=replace(
            asc_melastic().draws, patches=LOW_COLUMNS, seconds=(0.35, 1.0), ramp_epochs=15
        ),
        optim=replace(base.optim, epochs=90),
    )


def esc50_melastic() -> TrainConfig:
    """ESC-50 with every dial at once, fold 1 for testing: patches that span all mel bins."""
    base = esc50()
    return replace(
        base,
        name="esc50-melastic",
        draws=Draws(
            patches=LONG_COLUMNS,
            hops_ms=HOPS_MS,
            seconds=(1.0, 5.0),
            keep=(0.5, 1.0),
            ramp_epochs=30,
            share=0.7,
        ),
    )
