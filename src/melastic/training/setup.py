"""Before the first step: which clips, which classes, which model."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from melastic.architecture import model_config
from melastic.checkpoints.store import digest, load
from melastic.checkpoints.transfer import beginning_as, dropped, transfer
from melastic.classifier import Classifier
from melastic.config import ModelConfig, Task
from melastic.data.features import Features
from melastic.data.manifest import Clip, check_files, label_names, read_manifest, select
from melastic.errors import InputError, unknown_name
from melastic.frontend.normalize import fixed_frames, frames_of
from melastic.patches.grid import FreqTime, freq_time
from melastic.presets import ANY_LENGTH, PRESETS
from melastic.progress import note
from melastic.randomness import generator
from melastic.training.config import ModelChoice, PretrainConfig, TrainConfig
from melastic.training.settings import told
from melastic.training.state import saved_model


@dataclass(frozen=True)
class Splits:
    """The clips of a run."""

    train: list[Clip]
    val: list[Clip]
    """Clips that choose the best epoch; may be empty."""
    test: list[Clip]
    """Clips that the finished model is evaluated on; may be empty."""
    labels: tuple[str, ...]
    """Classes; none in pretraining."""
    multi_label: bool

    def __str__(self) -> str:
        """How many clips of how many classes."""
        classes = f"of {len(self.labels)} classes" if self.labels else "without labels"
        numbers = f"{len(self.train)} training, {len(self.val)} held-out and {len(self.test)} test"
        return f"{numbers} clips {classes}"


def split_clips(config: TrainConfig) -> Splits:
    """Read the manifest and share its clips out.

    Raises:
        InputError: if the manifest is missing or wrong, or a selection names no clip, or training
            clips are held out or tested on as well.
    """
    data = config.data
    if data.manifest is None:
        raise InputError(
            "data.manifest is required; write one with 'melastic data prepare' and pass "
            "--data.manifest FILE"
        )
    labelled = not isinstance(config, PretrainConfig)
    clips = read_manifest(data.manifest, labelled=labelled)
    train = select(clips, data.train)
    val = select(clips, data.val) if data.val else []
    if data.val_share:
        train, val = hold_out(train, config)
    test = select(clips, data.test) if data.test else []
    places = {
        name: {(clip.path, clip.start_s) for clip in chosen}
        for name, chosen in (("train", train), ("val", val), ("test", test))
    }
    for one, other in combinations(places, 2):
        shared = places[one] & places[other]
        if shared and data.val_share and (one, other) == ("train", "val"):
            raise InputError(
                f"data.val_share holds out clips that are not trained on, {min(shared)[0]} is "
                "listed twice; drop one of its rows"
            )
        if shared:
            raise InputError(
                f"data.{one} and data.{other} must not share clips, {len(shared)} are in both, "
                f"such as {min(shared)[0]}; change the selections"
            )
    check_files([*train, *val, *test])
    if not labelled:
        return Splits(train, val, test, (), multi_label=False)
    labels = label_names([*train, *val, *test])
    unseen = set(labels) - {label for clip in train for label in clip.labels}
    if unseen:
        raise InputError(
            f"every label needs training clips, {sorted(unseen)[0]!r} has none; change data.train"
        )
    several = next((clip for clip in (*train, *val, *test) if len(clip.labels) > 1), None)
    multi = config.model.task == "multi-label"
    if config.model.task == "auto":
        multi = several is not None
    if several is not None and not multi:
        raise InputError(
            f"model.task is single-label and {several.path} has {len(several.labels)} labels; use "
            "multi-label, or select other clips"
        )
    return Splits(train, val, test, labels, multi)


def hold_out(clips: Sequence[Clip], config: TrainConfig) -> tuple[list[Clip], list[Clip]]:
    """Share clips out at random, label by label: (to train on, held out).

    Each label, or combination of labels, has its share to the nearest whole clip below or above, so
    that all of them together have theirs as far as each label keeps a clip to be trained on.

    Args:
        clips: that a run trains on or holds out.
        config: its settings.

    Raises:
        InputError: if the share is less than half a clip.
    """
    share, seed = config.data.val_share, config.data.split_seed
    seed = config.run.seed if seed is None else seed
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        groups[clip.labels].append(index)
    wanted = {labels: share * len(members) for labels, members in groups.items()}
    count = {labels: int(exact) for labels, exact in wanted.items()}
    total = round(share * len(clips))
    if not total:
        raise InputError(
            f"data.val_share holds clips out, {share:g} of {len(clips)} is less than one; raise it "
            "or leave it out"
        )
    owners: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for combination in groups:
        for label in combination:
            owners[label].append(combination)
    most = {  # a clip of each label stays to be trained on
        combination: len(members) - any(len(owners[label]) == 1 for label in combination)
        for combination, members in groups.items()
    }
    names = list(wanted)  # equal remainders are no reason to prefer what a manifest names first
    drawn = torch.randperm(len(names), generator=generator(seed, "hold out")).tolist()
    names = [names[i] for i in drawn]
    able = [labels for labels in names if count[labels] < most[labels]]
    remainders = sorted(able, key=lambda labels: count[labels] - wanted[labels])
    for labels in remainders[: total - sum(count.values())]:
        count[labels] += 1
    held: set[int] = set()
    for labels, members in groups.items():
        order = torch.randperm(
            len(members), generator=generator(seed, "hold out", *labels)
        ).tolist()
        held |= {members[i] for i in order[: count[labels]]}
    return (
        [clip for i, clip in enumerate(clips) if i not in held],
        [clip for i, clip in enumerate(clips) if i in held],
    )


def build_model(
    config: TrainConfig,
    splits: Splits,
    features: Features,
    left_out: Collection[int],
    *,
    folder: Path | None = None,
    before: Path | None = None,
    quiet: bool,
) -> Classifier:
    """The model of a run: random weights that its seed gives, or those of a trained model.

    Args:
        config: the run's settings.
        splits: its clips.
        features: of its training clips.
        left_out: clips that cannot be read.
        folder: of the run; where it has a saved state, that fills the model. None: there is none.
        before: run of the phase before; None: this is the first.
        quiet: whether to keep silent.

    Raises:
        InputError: if there is no such preset, or the trained model does not fit.
    """
    resumed = None if folder is None else saved_model(folder)
    if resumed is not None:
        return Classifier(resumed)
    if config.model.preset not in PRESETS:
        raise unknown_name("model", config.model.preset, PRESETS)
    task: Task = "multi-label" if splits.multi_label else "single-label"
    allowed = config.data.max_unreadable
    made_of = model_config(
        config.model.architecture, name=config.model.preset, labels=splits.labels, task=task
    )
    init = config.model.init if before is None else before
    if init is None:
        mean, std = features.statistics(left_out=left_out, max_unreadable=allowed)
        frontend = dataclasses.replace(made_of.frontend, mean=mean, std=std)
        torch.manual_seed(config.run.seed)
        return Classifier(dataclasses.replace(made_of, frontend=frontend))
    trained = load(init)
    if trained.config.patches.bin_scale:
        mean, std = features.statistics(left_out=left_out, max_unreadable=allowed)
        frontend = dataclasses.replace(made_of.frontend, mean=mean, std=std)
        made_of = dataclasses.replace(made_of, frontend=frontend)
    torch.manual_seed(config.run.seed)
    model = Classifier(beginning_as(made_of, trained.config, native=_native(config.model)))
    anew = before is not None and config.passing.positions == "new"
    new = ", ".join(transfer(trained, model, leave=["positions"] if anew else [])) or "nothing"
    gone = ", ".join(dropped(trained, model))
    left = f"; left out: {gone}" if gone else ""
    note(f"weights of {init}; new: {new}{left}{_length_note(model)}", quiet=quiet)
    return model


def _native(choice: ModelChoice) -> bool:
    """Whether clips keep their lengths whatever model a run starts from."""
    if choice.length == "auto":
        return choice.preset.rpartition("-")[0] in ANY_LENGTH
    return choice.length == "native"


def _length_note(model: Classifier) -> str:
    """What people read of a fixed length that was taken over."""
    frontend = model.config.frontend
    if frontend.fixed_frames is None:
        return ""
    seconds = frontend.fixed_frames * frontend.hop_ms / 1000
    return f"; all clips are cut or padded to its {seconds:g} s (not with --model.length native)"


def check_views(
    config: TrainConfig, made_of: ModelConfig, features: Features, left_out: Container[int]
) -> None:
    """Refuse views under which some training clip has no patch, or that the encoder cannot read.

    A teacher reads the same clips with its own patches.

    Raises:
        InputError: naming the sizes.
    """
    frontend, draws, view = made_of.frontend, config.draws, config.view
    least = view.keep if draws.keep is None else min(view.keep, *draws.keep)
    if made_of.patches.fold is not None and least < 1:
        raise InputError(
            f"a window encoder reads all patches of a clip, got a share of {least:g}; leave "
            "view.keep and draws.keep out"
        )
    read = [features.frames(i) for i in range(len(features.clips)) if i not in left_out]
    if not read:
        raise InputError("training needs clips, none can be read; mend the manifest")
    step_ms, warp = features.view.step_ms(features.frontend.hop_ms), 1 + config.augment.warp_time
    shortest_ms = min(read) * step_ms
    for seconds in (*(draws.seconds or ()), view.seconds):
        shortest_ms = shortest_ms if seconds is None else min(shortest_ms, 1000 * seconds)
    shortest_ms /= warp
    hops = (*draws.hops_ms, frontend.hop_ms if view.hop_ms is None else view.hop_ms)
    factor = max(pooling.factor for pooling in (*draws.poolings, view.pooling))
    frames_of(frontend.sample_rate, frontend, hop_ms=min(hops))
    whole = max(1, int(shortest_ms / max(hops)))
    if whole < factor:
        raise InputError(
            f"the shortest training clip may have {whole} frames every {max(hops):g} ms, which "
            f"cannot be pooled by {factor}; use a shorter hop, a smaller factor or longer clips"
        )
    least = min(hops) * min(pooling.factor for pooling in (*draws.poolings, view.pooling))
    longest_ms = max(read) * step_ms * warp
    fewest = whole // factor
    teacher = None if config.distill.teacher is None else load(config.distill.teacher).config
    for frames in (
        fixed_frames(frontend, max(hops) * factor) or fewest,
        fixed_frames(frontend, least) or max(fewest, round(longest_ms / least)),
    ):
        size = FreqTime(frontend.num_mels, frames)
        for patch in (*draws.patches, view.patch):
            made_of.patches.grid(size, None if patch is None else freq_time(patch))
        if teacher is not None and teacher.frontend.num_mels == frontend.num_mels:
            teacher.patches.grid(size)


def fingerprint(config: TrainConfig, splits: Splits) -> str:
    """Digest of all that decides the weights of a run."""
    run = dataclasses.replace(config.run, trackers=(), save_every_s=0.0)
    data = dataclasses.replace(config.data, manifest=None, workers=None)
    optim = config.optim
    if optim.steps is not None:  # which decide how many epochs there are
        optim = dataclasses.replace(optim, epochs=1)
    settings = dataclasses.replace(config, run=run, data=data, optim=optim)
    clips: list[Any] = [
        [clip.path.name, list(clip.labels), clip.start_s, clip.end_s]
        for clip in (*splits.train, *splits.val)
    ]
    return digest([told(settings), clips])
