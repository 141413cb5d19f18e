"""Audio Mamba beside AST: the same clips, views, augmentation and epochs, another encoder."""

from dataclasses import replace

from melastic.presets import audio_mamba
from melastic.recipes.esc50 import esc50
from melastic.recipes.flexible import asc_ast, asc_melastic_columns
from melastic.recipes.fsdd import fsdd
from melastic.recipes.keywords import asc
from melastic.training.config import ModelChoice, TrainConfig
from melastic.training.phases import Passing


def asc_aum() -> TrainConfig:
    """Arabic keywords, square patches: Audio Mamba, class token in the middle."""
    return _beside(asc_ast(), "asc-aum")


def asc_aum_columns() -> TrainConfig:
    """Arabic keywords, patches that span all mel bins: Audio Mamba along time alone."""
    return _beside(asc(), "asc-aum-columns")


def asc_melastic_aum() -> TrainConfig:
    """Arabic keywords with every dial at once: Audio Mamba on patches that span all mel bins."""
    base = asc_melastic_columns()
    there = base.model.architecture
    model = ModelChoice.of(
        "melasticaum-tiny", depth=2 * there.depth, patch=there.patch, input_size=there.input_size
    )
    return replace(base, name="asc-melastic-aum", model=model, passing=Passing())


def fsdd_aum() -> TrainConfig:
    """Spoken digits, official split: Audio Mamba on patches that span all mel bins."""
    return _beside(fsdd(), "fsdd-aum")


def esc50_aum() -> TrainConfig:
    """ESC-50, fold 1 for testing: Audio Mamba on patches that span all mel bins."""
    return _beside(esc50(), "esc50-aum")


def _beside(base: TrainConfig, name: str) -> TrainConfig:
    """A recipe with the encoder, class token and head of Audio Mamba, as wide and twice as deep."""
    there = base.model.architecture
    architecture = replace(audio_mamba(there), reading=there.reading)
    model = replace(base.model, preset="aum-nano", architecture=architecture)
    return replace(base, name=name, model=model, passing=Passing())
