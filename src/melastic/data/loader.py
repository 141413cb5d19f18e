"""Clips to batches of spectrograms, ahead of the model and in threads of their own."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from melastic.config import FrontendConfig
from melastic.data.features import Features
from melastic.devices import compute_alone, reading_threads
from melastic.errors import InputError
from melastic.frontend.augment import Augmentation, distort, mask, mix, mixing_weight
from melastic.frontend.normalize import fixed_frames, normalise
from melastic.patches.view import View
from melastic.randomness import generator, integer, uniform

Views = Callable[[int, int], View]
"""Epoch and clip to the view that it is seen through."""
AHEAD = 4
"""Batches that a thread prepares before they are asked for."""


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
    steps_ms: tuple[float, ...]
    """Time from one frame to the next in each clip (ms)."""
    unreadable: tuple[str, ...] = ()
    """Why clips are missing, one line each."""

    @property
    def spectrograms(self) -> list[Float[Tensor, "freq _"]]:
        """The clips one by one."""
        return list(self.frames.split(list(self.lengths), dim=1))

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        frames, targets = self.frames.to(device), self.targets.to(device)
        return replace(self, frames=frames, targets=targets)


class ClipDataset(Dataset[Batch]):
    """Batches of clips, each a pure function of (seed, epoch, indices)."""

    def __init__(
        self,
        features: Features,
        labels: Sequence[str],
        frontend: FrontendConfig,
        *,
        augmentation: Augmentation | None = None,
        views: Views | None = None,
        seed: int = 0,
    ) -> None:
        """Describe the batches.

        Args:
            features: the clips' log-mels.
            labels: the classes; none: nobody asks for them.
            frontend: statistics, and a fixed length where there is one.
            augmentation: what training does to clips; None: nothing.
            views: how each clip is seen in each epoch; None: through the view of the features.
            seed: seed of the run.

        Raises:
            InputError: if a clip has a label that is not among the classes.
        """
        number = {label: i for i, label in enumerate(labels)}
        for clip in features.clips if labels else ():
            for label in clip.labels:
                if label not in number:
                    raise InputError(
                        f"{clip.path}: has the label {label!r}, which the model does not know; "
                        "use a manifest with the labels that it was trained on"
                    )
        self.features = features
        self.frontend = frontend
        self.augmentation = augmentation
        self.views = views
        self.seed = seed
        self.longest = longest_frames(features.view, frontend)
        """Frames of the longest stretch of a clip: drawn in training, else its beginning."""
        self.targets = torch.zeros(len(features.clips), len(labels))
        for row, clip in enumerate(features.clips):
            self.targets[row, [number[label] for label in clip.labels if labels]] = 1

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
            steps_ms=tuple(
                self.view(epoch, index).step_ms(self.frontend.hop_ms) for index, *_ in clips
            ),
            unreadable=tuple(unreadable),
        )

    def view(self, epoch: int, index: int) -> View:
        """How a clip is seen in an epoch."""
        return self.features.view if self.views is None else self.views(epoch, index)

    def clip(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Spectrogram and target of one clip in an epoch."""
        view, config = self.view(epoch, index), self.augmentation
        x, y = self.features.at(index, view), self.targets[index]
        step_ms = view.step_ms(self.frontend.hop_ms)
        if config is None:
            return normalise(self._cut(x, view, None), self.frontend, step_ms), y
        draw = generator(self.seed, "clip", epoch, index)
        x = self._cut(x, view, draw)
        if config.mixup and uniform(0, 1, draw) < config.mixup:
            x, y = self._mixed(x, y, view, draw)
        x = distort(x, config, draw, sample_rate=self.frontend.sample_rate)
        if config.official_order:
            return normalise(mask(x, config, draw), self.frontend, step_ms), y
        return mask(normalise(x, self.frontend, step_ms), config, draw), y

    def _mixed(
        self, x: Tensor, y: Tensor, view: View, draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A clip with another one, seen alike, mixed in; alone if the other cannot be read."""
        partner = integer(len(self.targets), draw)
        weight = mixing_weight(self.augmentation or Augmentation(), draw)
        try:
            other = self._cut(self.features.at(partner, view), view, draw)
        except InputError:
            return x, y
        return mix(x, other, weight), weight * y + (1 - weight) * self.targets[partner]

    def _cut(self, x: Tensor, view: View, draw: torch.Generator | None) -> Tensor:
        """At most the longest stretch: drawn, or the beginning."""
        longest = longest_frames(view, self.frontend)
        if longest is None or x.shape[1] <= longest:
            return x
        first = 0 if draw is None else integer(x.shape[1] - longest + 1, draw)
        return x[:, first : first + longest]


def longest_frames(view: View, frontend: FrontendConfig) -> int | None:
    """Frames of the longest stretch that a view takes of a clip; None: all of them."""
    if view.seconds is None:
        return None
    return max(1, round(view.seconds * 1000 / view.step_ms(frontend.hop_ms)))


def seen_frames(frames: int, view: View, frontend: FrontendConfig) -> int:
    """Frames that a model sees of a clip through a view.

    Args:
        frames: of the whole clip, at the view's time resolution.
        view: which length it takes.
        frontend: which may have a fixed length.
    """
    fixed = fixed_frames(frontend, view.step_ms(frontend.hop_ms))
    longest = longest_frames(view, frontend)
    return fixed or (frames if longest is None else min(frames, longest))


def workers_for(features: Features, device: torch.device) -> int:
    """Threads that prepare batches: none where a model on the CPU needs the cores more.

    Args:
        features: of the clips.
        device: where the model is.
    """
    return 0 if features.complete and device.type == "cpu" else reading_threads()


def load_batches(
    dataset: ClipDataset, keys: Sequence[tuple[int, list[int]]], *, workers: int
) -> Iterator[Batch]:
    """Batches in a given order, prepared ahead by threads.

    Threads and not processes: a process that is forked while another thread allocates memory
    inherits a lock that nobody will open, and a spawned one would need a copy of what is kept.
    Decoders and tensor operations run beside each other and the model in threads too.

    Args:
        dataset: where they come from.
        keys: (epoch, indices of clips) of each batch.
        workers: threads that prepare them; 0: none, batches are made when they are asked for.
    """
    if not workers:
        yield from map(dataset.__getitem__, keys)
        return
    pool = ThreadPoolExecutor(workers, "read", initializer=compute_alone)
    ahead: deque[Future[Batch]] = deque()
    try:
        for key in keys:
            ahead.append(pool.submit(dataset.__getitem__, key))
            if len(ahead) > AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
