"""Which training clips make up a step: as many as fill its tokens."""

from collections.abc import Container

import torch
from accelerate import Accelerator

from melastic.classifier import Classifier
from melastic.config import ModelConfig
from melastic.data.features import Features
from melastic.data.loader import seen_frames
from melastic.data.sampler import TokenBudgetSampler, balanced_weights
from melastic.encoders.attention import packing_text
from melastic.encoders.config import TransformerConfig
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime, freq_time
from melastic.training.config import TrainConfig
from melastic.training.setup import Splits


def build_sampler(
    config: TrainConfig,
    splits: Splits,
    model: Classifier,
    features: Features,
    left_out: Container[int],
) -> TokenBudgetSampler:
    """Batches of training clips by their tokens in the run's own view, before augmentation.

    Args:
        config: settings of the run.
        splits: its clips.
        model: that is trained.
        features: of the training clips, in the run's own view.
        left_out: clips that cannot be read.

    Raises:
        InputError: if the longest clip has more tokens than a step.
    """
    tokens = [
        1 if i in left_out else _tokens(config, model.config, features.frames(i))
        for i in range(len(splits.train))
    ]
    return TokenBudgetSampler(
        tokens,
        batch_tokens=config.optim.batch_tokens,
        seed=config.run.seed,
        weights=balanced_weights(splits.train) if config.data.balanced else None,
        left_out=left_out,
    )


def check_budget(
    config: TrainConfig, made_of: ModelConfig, features: Features, left_out: Container[int]
) -> None:
    """Refuse a budget that the longest clip exceeds, by the fewest frames that it may have.

    Args:
        config: settings of the run.
        made_of: the model's.
        features: of the training clips, in any time resolution.
        left_out: clips that cannot be read.

    Raises:
        InputError: if the longest clip has more tokens than a step.
    """
    longest = max(features.frames(i) for i in range(len(features.clips)) if i not in left_out)
    apart_ms = (longest - 1) * features.view.step_ms(features.frontend.hop_ms)
    hop_ms = config.view.hop_ms or made_of.frontend.hop_ms
    frames = (1 + int(apart_ms / hop_ms)) // config.view.pooling.factor
    tokens = _tokens(config, made_of, max(1, frames))
    TokenBudgetSampler([tokens], batch_tokens=config.optim.batch_tokens, seed=0)


def _tokens(config: TrainConfig, made_of: ModelConfig, frames: int) -> int:
    """Tokens of a clip of so many frames in the run's own view."""
    view, num_mels = config.view, made_of.frontend.num_mels
    size = FreqTime(num_mels, seen_frames(frames, view, made_of.frontend))
    patch = None if view.patch is None else freq_time(view.patch)
    return tokens_of(made_of, size, patch=patch, keep=view.keep)


def rows_text(model: Classifier, sampler: TokenBudgetSampler, accelerator: Accelerator) -> str:
    """How full the rows of the first step are, where attention needs rows; else nothing.

    Args:
        model: that is trained.
        sampler: of its clips.
        accelerator: what it computes on.
    """
    if not isinstance(model.config.encoder, TransformerConfig):
        return ""
    tokens = [sampler.tokens[i] for i in sampler.epoch(0)[0]]
    formats = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = formats.get(accelerator.mixed_precision, torch.float32)
    said = packing_text(tokens, accelerator.device.type, dtype)
    return f"; {said}" if said else ""
