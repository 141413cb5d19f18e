"""Run a classifier over clips."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melastic.classifier import Classifier
from melastic.config import ModelConfig
from melastic.data.features import Features, OnClip, too_many_unreadable
from melastic.data.loader import Batch, ClipDataset, load_batches, seen_frames
from melastic.data.manifest import Clip
from melastic.devices import cores_shared_with, reading_threads
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs, tokens_of
from melastic.evaluation.metrics import Metrics, measure_scores
from melastic.evaluation.seen import kept_patches
from melastic.patches.grid import FreqTime, freq_time
from melastic.patches.view import View
from melastic.serialize import to_json


@dataclass(frozen=True)
class Outputs:
    """Logits and targets of some clips, in the order of the clips."""

    logits: Float[Tensor, "clips values"]
    """Or what was computed in their place."""
    targets: Float[Tensor, "clips classes"]
    frames: tuple[int, ...]
    """Frames of each clip."""
    unreadable: tuple[str, ...] = ()
    """Why clips are missing, one line each."""
    model_seconds: float = 0.0
    """Time of the model alone (s)."""


@dataclass(frozen=True)
class Evaluation:
    """How well a classifier does on some clips, and at what cost."""

    metrics: Metrics
    view: View
    gmacs_per_clip: float
    """Multiply-adds of the model (10^9), mean over clips."""
    tokens_per_clip: float
    """Tokens of the encoder, mean over clips."""
    seconds: float
    """Time that it took, audio decoding included (s)."""
    outputs: Outputs

    def to_json(self) -> dict[str, Any]:
        """What ``melastic evaluate --json`` prints."""
        return {
            **asdict(self.metrics),
            "view": to_json(self.view),
            "gmacs_per_clip": self.gmacs_per_clip,
            "tokens_per_clip": self.tokens_per_clip,
            "seconds": self.seconds,
            "unreadable": list(self.outputs.unreadable),
        }


def evaluate(
    model: Classifier,
    clips: Sequence[Clip],
    *,
    view: View | None = None,
    batch_tokens: int = 4096,
    workers: int | None = None,
    max_unreadable: int = 0,
    on_clip: OnClip | None = None,
) -> Evaluation:
    """Scores and cost of a classifier on labelled clips.

    Args:
        model: the classifier; it stays on its device.
        clips: from a manifest.
        view: how clips become tokens; None: the model's own way.
        batch_tokens: most tokens that are computed at once.
        workers: threads that read clips ahead; None: half as many as there are cores.
        max_unreadable: clips that may turn out unreadable; they are listed and left out.
        on_clip: told about progress.

    Raises:
        InputError: if clips cannot be read, or have labels that the model does not know, or several
            where it names one.
    """
    features = Features(clips, model.config.frontend, view=view)
    return evaluate_features(
        model,
        features,
        batch_tokens=batch_tokens,
        workers=reading_threads() if workers is None else workers,
        max_unreadable=max_unreadable,
        on_clip=on_clip,
    )


def evaluate_features(
    model: Classifier,
    features: Features,
    *,
    batch_tokens: int,
    workers: int,
    max_unreadable: int = 0,
    on_clip: OnClip | None = None,
) -> Evaluation:
    """Scores and cost of a classifier on clips, seen through the view of their features.

    Args:
        model: the classifier; it stays on its device.
        features: log-mels of the clips, some of which may be kept already.
        batch_tokens: most tokens that are computed at once.
        workers: threads that read clips ahead; 0: none.
        max_unreadable: clips that may turn out unreadable; they are listed and left out.
        on_clip: told about progress.

    Raises:
        InputError: if clips cannot be read, or have labels that the model does not know, or several
            where it names one.
    """
    started = time.perf_counter()
    config, view = model.config, features.view
    if config.task == "single-label":
        _check_single(features.clips)
    dataset = ClipDataset(features, model.labels, config.frontend)
    with cores_shared_with(workers):
        outputs = run(
            model,
            dataset,
            list(range(len(features.clips))),
            batch_tokens=batch_tokens,
            workers=workers,
            max_unreadable=max_unreadable,
            on_clip=on_clip,
        )
    seconds = time.perf_counter() - started
    outputs = required(outputs, max_unreadable)
    sizes = [FreqTime(config.frontend.num_mels, frames) for frames in outputs.frames]
    patch = None if view.patch is None else freq_time(view.patch)
    costs = [gmacs(config, size, patch=patch, keep=view.keep) for size in sizes]
    tokens = [tokens_of(config, size, patch=patch, keep=view.keep) for size in sizes]
    return Evaluation(
        metrics=measure_scores(
            outputs.logits, outputs.targets, multi_label=config.task == "multi-label"
        ),
        view=view,
        gmacs_per_clip=sum(costs) / len(sizes),
        tokens_per_clip=sum(tokens) / len(sizes),
        seconds=seconds,
        outputs=outputs,
    )


def _check_single(clips: Sequence[Clip]) -> None:
    """Refuse clips with several labels, of which a single-label model could name only one.

    Raises:
        InputError: naming the first.
    """
    for clip in clips:
        if len(clip.labels) > 1:
            raise InputError(
                f"{clip.path}: a model that names one class is scored on clips with one label, "
                f"got {', '.join(clip.labels)}; select others, or train with model.task multi-label"
            )


@torch.no_grad()
def run(
    model: Classifier,
    dataset: ClipDataset,
    indices: Sequence[int],
    *,
    batch_tokens: int,
    workers: int,
    max_unreadable: int = 0,
    on_clip: OnClip | None = None,
    autocast: Callable[[], Any] | None = None,
    forward: Callable[[Batch], Tensor] | None = None,
) -> Outputs:
    """Logits of some clips of a data set, in the order of ``indices``; there may be none.

    Args:
        model: the classifier.
        dataset: the clips.
        indices: which of them.
        batch_tokens: most tokens of a batch, as a rule.
        workers: threads that prepare batches.
        max_unreadable: clips that may be unreadable.
        on_clip: told about progress.
        autocast: context of the model's precision; None: full.
        forward: what is computed of a batch in place of logits; None: logits.

    Raises:
        InputError: if more clips than allowed cannot be read.
    """
    view = dataset.features.view
    step_ms = view.step_ms(model.config.frontend.hop_ms)
    device = model.patch_embed.bias.device
    keys = [(0, part) for part in _parts(model, dataset, indices, batch_tokens)]
    done: list[Batch] = []
    logits: list[Tensor] = []
    unreadable: list[str] = []
    finished, seconds = 0, 0.0
    for (_, part), batch in zip(keys, load_batches(dataset, keys, workers=workers), strict=True):
        unreadable += batch.unreadable
        if len(unreadable) > max_unreadable:
            raise too_many_unreadable(unreadable, max_unreadable)
        finished += len(part)
        if batch.indices:
            _check_sizes(model.config, dataset, batch)
            kept = _kept(model.config, batch, view)
            moved = batch.to(device)
            started = time.perf_counter()
            with autocast() if autocast else torch.no_grad():
                if forward is None:
                    out = model(moved.spectrograms, view.patch, step_ms, kept)
                else:
                    out = forward(moved)
            logits.append(out.float().cpu())
            seconds += time.perf_counter() - started
            done.append(batch)
        if on_clip:
            on_clip(finished, len(indices))
    if not done:
        return Outputs(torch.zeros(0, 0), torch.zeros(0, 0), (), tuple(unreadable))
    outputs = _in_order(done, logits, indices)
    return replace(outputs, unreadable=tuple(unreadable), model_seconds=seconds)


def required(outputs: Outputs, max_unreadable: int) -> Outputs:
    """Outputs of which there are some.

    Args:
        outputs: of clips.
        max_unreadable: clips that may be unreadable.

    Raises:
        InputError: if there are none.
    """
    if not outputs.frames:
        unreadable = outputs.unreadable or ("no clip was readable",)
        if len(unreadable) <= max_unreadable:
            raise InputError(f"{unreadable[0]} (no clip is left to be scored; mend the manifest)")
        raise too_many_unreadable(list(unreadable), max_unreadable)
    return outputs


def _check_sizes(config: ModelConfig, dataset: ClipDataset, batch: Batch) -> None:
    """Refuse clips that a model cannot read, by name.

    Raises:
        InputError: naming the first of them.
    """
    view, mels = dataset.features.view, config.frontend.num_mels
    patch = None if view.patch is None else freq_time(view.patch)
    for index, frames in zip(batch.indices, batch.lengths, strict=True):
        try:
            config.patches.grid(FreqTime(mels, frames), patch)
        except InputError as error:
            raise InputError(f"{dataset.features.clips[index].path}: {error}") from None


def _in_order(done: Sequence[Batch], logits: Sequence[Tensor], indices: Sequence[int]) -> Outputs:
    """What was computed of batches, in the order of the clips."""
    place = {index: i for i, index in enumerate(indices)}
    order = torch.tensor([place[i] for batch in done for i in batch.indices]).argsort()
    frames = [n for batch in done for n in batch.lengths]
    return Outputs(
        logits=torch.cat(list(logits))[order],
        targets=torch.cat([batch.targets for batch in done])[order],
        frames=tuple(frames[i] for i in order.tolist()),
    )


def _parts(
    model: Classifier, dataset: ClipDataset, indices: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Clips that are computed together.

    Lengths are only known once a clip is read, so their number is fixed beforehand: by the longest
    spectrogram that is kept, else as if all clips were as long as the model's positions reach.
    """
    config, view = model.config, dataset.features.view
    frontend, patch = config.frontend, None if view.patch is None else freq_time(view.patch)
    step_ms = view.step_ms(frontend.hop_ms)
    known = [dataset.features.frames(index) for index in dataset.features.in_memory]
    usual = max(known) if known else round(config.extent[1] * 1000 / step_ms)
    usual = max(seen_frames(usual, view, frontend), (patch or config.patches.patch).time)
    size = FreqTime(frontend.num_mels, usual)
    count = max(1, batch_tokens // tokens_of(config, size, patch=patch, keep=view.keep))
    return [list(indices[i : i + count]) for i in range(0, len(indices), count)]


def _kept(config: ModelConfig, batch: Batch, view: View) -> list[Int[Tensor, " _"]] | None:
    """Which patches of each clip of a batch are used; None: all."""
    if view.keep == 1:
        return None
    clips = zip(batch.indices, batch.lengths, strict=True)
    return [kept_patches(config, frames, view, index) for index, frames in clips]
