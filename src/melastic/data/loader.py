"""Clips to batches of spectrograms, ahead of the model and in other processes."""

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from melastic.config import FrontendConfig
from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.frontend.audio import duration_s, load_audio
from melastic.frontend.augment import Augmentation, distort, mask, mix, mixing_weight
from melastic.frontend.compress import pool_time
from melastic.frontend.normalize import Statistics, measure, normalise, raw_spectrogram_of
from melastic.patches.view import View
from melastic.randomness import generator, integer, uniform

OnClip = Callable[[int, int], None]
"""Told about progress: clips done, clips in all."""


@dataclass(frozen=True)
class Batch:
    """Some clips of a step, one behind the other."""

    frames: Float[Tensor, "freq _"]
    """Normalised log-mels of all clips, joined along time."""
    lengths: tuple[int, ...]
    """Frames of each clip."""
    targets: Float[Tensor, "clips classes"]
    """Share of each class in each clip; sums to 1 for one label, or to the number of labels."""
    indices: tuple[int, ...]
    """Which clips of the data set they are."""
    unreadable: tuple[str, ...] = ()
    """Why clips are missing, one line each."""

    @property
    def spectrograms(self) -> list[Float[Tensor, "freq _"]]:
        """The clips one by one."""
        return list(self.frames.split(list(self.lengths), dim=1))

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        frames, targets = self.frames.to(device), self.targets.to(device)
        return Batch(frames, self.lengths, targets, self.indices, self.unreadable)


class Features:
    """Raw log-mels of clips; computed when asked for, and kept while there is room."""

    def __init__(
        self,
        clips: Sequence[Clip],
        frontend: FrontendConfig,
        *,
        view: View | None = None,
        cache_mb: int = 0,
    ) -> None:
        """Name the clips.

        Args:
            clips: from a manifest.
            frontend: how spectrograms are computed.
            view: time resolution; None: the front end's.
            cache_mb: most memory for kept spectrograms (MB).
        """
        self.clips = clips
        self.frontend = frontend
        self.view = view or View()
        self.room = cache_mb * 1_000_000
        self.kept: dict[int, Tensor] = {}
        self._frames: dict[int, int] = {}

    def __getitem__(self, index: int) -> Float[Tensor, "freq _"]:
        """Log-mels of one clip, not normalised.

        Raises:
            InputError: if it cannot be read, naming the file.
        """
        if index in self.kept:
            return self.kept[index]
        clip = self.clips[index]
        waveform = load_audio(
            clip.path,
            sample_rate=self.frontend.sample_rate,
            start_s=clip.start_s,
            end_s=clip.end_s,
        )
        try:
            spectrogram = raw_spectrogram_of(waveform, self.frontend, hop_ms=self.view.hop_ms)
            spectrogram = pool_time(spectrogram, self.view.pooling)
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from None
        if spectrogram.nbytes <= self.room:
            self.room -= spectrogram.nbytes
            self.kept[index] = spectrogram
        else:
            self.room = 0
        return spectrogram

    @property
    def complete(self) -> bool:
        """Whether every clip's spectrogram is kept."""
        return len(self.kept) == len(self.clips)

    def frames(self, index: int) -> int:
        """Frames of one clip's spectrogram; read off the file's header where it is not kept.

        Raises:
            InputError: if the header cannot be read, naming the file.
        """
        if index in self.kept:
            return self.kept[index].shape[1]
        if index not in self._frames:
            clip, frontend = self.clips[index], self.frontend
            end_s = clip.end_s if clip.end_s is not None else duration_s(clip.path)
            hop_ms = frontend.hop_ms if self.view.hop_ms is None else self.view.hop_ms
            whole = 1 + int(max(0.0, (end_s - clip.start_s) * 1000 - frontend.window_ms) / hop_ms)
            self._frames[index] = max(1, whole // self.view.pooling.factor)
        return self._frames[index]

    def fill(self, *, max_unreadable: int = 0, on_clip: OnClip | None = None) -> dict[int, str]:
        """Keep spectrograms until the room is used up, and read the headers of the other clips.

        Args:
            max_unreadable: how many clips may fail before it is an error.
            on_clip: told about progress.

        Returns:
            Why clips cannot be read, by index.

        Raises:
            InputError: if more clips than allowed cannot be read; names the first.
        """
        failed: dict[int, str] = {}
        with one_thread():
            for index in range(len(self.clips)):
                try:
                    if self.room > 0:
                        self[index]
                    self.frames(index)
                except InputError as error:
                    failed[index] = str(error)
                    if len(failed) > max_unreadable:
                        raise too_many_unreadable(list(failed.values()), max_unreadable) from None
                if on_clip:
                    on_clip(index + 1, len(self.clips))
        return failed

    def statistics(
        self, *, most: int = 2000, left_out: Container[int] = (), on_clip: OnClip | None = None
    ) -> Statistics:
        """Mean and deviation over at most so many clips, evenly spaced.

        Args:
            most: how many.
            left_out: clips that are known to be unreadable.
            on_clip: told about progress.

        Raises:
            InputError: if a clip cannot be read, or all are equal.
        """
        chosen = range(0, len(self.clips), max(1, -(-len(self.clips) // most)))

        def readable() -> Iterator[Tensor]:
            for done, index in enumerate(chosen, start=1):
                if index not in left_out:
                    yield self[index]
                if on_clip:
                    on_clip(done, len(chosen))

        return measure(readable())


def too_many_unreadable(reasons: Sequence[str], allowed: int) -> InputError:
    """The error for clips that cannot be read."""
    return InputError(
        f"{reasons[0]} ({len(reasons)} unreadable, {allowed} allowed; mend the manifest, or allow "
        "more with max_unreadable)"
    )


class ClipDataset(Dataset[Batch]):
    """Batches of clips, each a pure function of (seed, epoch, indices)."""

    def __init__(
        self,
        features: Features,
        labels: Sequence[str],
        frontend: FrontendConfig,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        """Describe the batches.

        Args:
            features: the clips' log-mels.
            labels: the classes.
            frontend: statistics, and a fixed length where there is one.
            augmentation: what training does to clips; None: nothing.
            seed: seed of the run.

        Raises:
            InputError: if a clip has a label that is not among the classes.
        """
        number = {label: i for i, label in enumerate(labels)}
        for clip in features.clips:
            for label in clip.labels:
                if label not in number:
                    raise InputError(
                        f"{clip.path}: has the label {label!r}, which the model does not know; "
                        "use a manifest with the labels that it was trained on"
                    )
        self.features = features
        self.frontend = frontend
        self.augmentation = augmentation
        self.seed = seed
        seconds, step_ms = features.view.seconds, features.view.step_ms(frontend.hop_ms)
        self.longest = None if seconds is None else max(1, round(seconds * 1000 / step_ms))
        """Frames of the longest stretch of a clip: drawn in training, else its beginning."""
        self.targets = torch.zeros(len(features.clips), len(labels))
        for row, clip in enumerate(features.clips):
            self.targets[row, [number[label] for label in clip.labels]] = 1

    def __getitem__(self, key: tuple[int, Sequence[int]]) -> Batch:
        """The batch of an epoch that holds some clips."""
        epoch, indices = key
        clips: list[tuple[int, Tensor, Tensor]] = []
        unreadable = []
        for index in indices:
            try:
                clips.append((index, *self.clip(epoch, index)))
            except InputError as error:
                unreadable.append(str(error))
        nothing = torch.zeros(self.frontend.num_mels, 0)
        return Batch(
            frames=torch.cat([nothing, *(x for _, x, _ in clips)], dim=1),
            lengths=tuple(x.shape[1] for _, x, _ in clips),
            targets=torch.stack([self.targets[0] * 0, *(y for *_, y in clips)])[1:],
            indices=tuple(index for index, *_ in clips),
            unreadable=tuple(unreadable),
        )

    def clip(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Spectrogram and target of one clip in an epoch."""
        x, y = self.features[index], self.targets[index]
        config = self.augmentation
        if config is None:
            return normalise(self._cut(x, None), self.frontend), y
        draw = generator(self.seed, "clip", epoch, index)
        x = self._cut(x, draw)
        if config.mixup and uniform(0, 1, draw) < config.mixup:
            x, y = self._mixed(x, y, draw)
        x = distort(x, config, draw)
        if config.official_order:
            return normalise(mask(x, config, draw), self.frontend), y
        return mask(normalise(x, self.frontend), config, draw), y

    def _mixed(self, x: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """A clip with another one mixed in; alone if the other cannot be read."""
        partner = integer(len(self.targets), draw)
        weight = mixing_weight(self.augmentation or Augmentation(), draw)
        try:
            other = self._cut(self.features[partner], draw)
        except InputError:
            return x, y
        return mix(x, other, weight), weight * y + (1 - weight) * self.targets[partner]

    def _cut(self, x: Tensor, draw: torch.Generator | None) -> Tensor:
        """At most the longest stretch: drawn, or the beginning."""
        beyond = 0 if self.longest is None else x.shape[1] - self.longest
        if beyond <= 0:
            return x
        first = 0 if draw is None else integer(beyond + 1, draw)
        return x[:, first : first + (self.longest or 0)]


class _Listed(Sampler[tuple[int, list[int]]]):
    """A sampler over a list that is already made."""

    def __init__(self, keys: Sequence[tuple[int, list[int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def load_batches(
    dataset: ClipDataset, keys: Sequence[tuple[int, list[int]]], *, workers: int
) -> Iterator[Batch]:
    """Batches in a given order, prepared ahead by other processes.

    Args:
        dataset: where they come from.
        keys: (epoch, indices of clips) of each batch.
        workers: processes that prepare them; 0: none, batches are made when they are asked for.
    """
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=_Listed(keys),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_lean if workers else None,
            generator=torch.Generator(),  # else a loader draws from the global generator
        )
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A context for many small operations, which several threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _lean(_: int) -> None:
    """A worker leaves the other cores to the model."""
    torch.set_num_threads(1)
