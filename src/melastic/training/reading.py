"""The clips of a run in memory: read once, for all of its phases where there is room."""

from collections.abc import Sequence

import torch

from melastic.architecture import frontend_config
from melastic.data.features import Features, Samples
from melastic.data.loader import workers_for
from melastic.data.manifest import Clip
from melastic.devices import best_device
from melastic.errors import InputError
from melastic.progress import bar, note
from melastic.training.config import TrainConfig
from melastic.training.phases import Phase


class Library:
    """What a run keeps of its clips from one phase to the next.

    While a later phase sees clips at another time resolution, their samples are kept beside the
    spectrograms of the phase, in half of the memory, and make room for spectrograms that need more.
    """

    def __init__(self, phases: Sequence[Phase] = (), *, quiet: bool) -> None:
        """Begin empty.

        Args:
            phases: of the run; none: it is a single one.
            quiet: whether people are told nothing.
        """
        self.phases = phases
        self.quiet = quiet
        self.number = 0
        self._parts: dict[str, Features] = {}

    def turn_to(self, number: int) -> None:
        """Read for another phase.

        Args:
            number: which, from 0.
        """
        self.number = number

    @property
    def wanted_again(self) -> bool:
        """Whether a later phase has another time resolution."""
        present, *later = map(_resolution, self.phases[self.number :] or [Phase()])
        return any(resolution != present for resolution in later)

    def read(
        self,
        config: TrainConfig,
        clips: Sequence[Clip],
        title: str,
        *,
        drawn: bool = False,
    ) -> tuple[Features, dict[int, str]]:
        """Spectrograms of clips, as many as memory is allowed for, and why some cannot be read.

        Args:
            config: settings of the run, or of one phase of it.
            clips: which.
            title: what they are, for people; what was read under it before is forgotten, but for
                what is of use now.
            drawn: whether spectrograms are needed at several time resolutions.

        Raises:
            InputError: if more clips than allowed cannot be read, or none can.
        """
        features = self._features(config, clips, title, drawn=drawn)
        with bar(f"reading {title}", quiet=self.quiet) as advance:
            failed = features.fill(max_unreadable=config.data.max_unreadable, on_clip=advance)
        for reason in failed.values():
            note(f"left out: {reason}", quiet=self.quiet)
        if clips and len(failed) == len(clips):
            reason = next(iter(failed.values()))
            raise InputError(f"{reason} (reading {title}: none can be read; mend the manifest)")
        if not self.wanted_again:
            features.cache.borrow()
        return features, failed

    def _features(
        self, config: TrainConfig, clips: Sequence[Clip], title: str, *, drawn: bool
    ) -> Features:
        """Where clips are kept, with what was read before and is of use."""
        frontend, view = frontend_config(config.model.architecture), config.view
        before = self._parts.pop(title, None)
        if before is None or before.clips != clips:
            shared = 1 if drawn else 0.5 if self.wanted_again else 0
            room = shared * config.data.cache_mb
            samples = Samples(clips, frontend.sample_rate, cache_mb=room)
        elif (before.frontend, before.view.resolution) == (frontend, view.resolution):
            before.view = view
            self._parts[title] = before
            return before
        else:
            samples = before.samples
            shared = 1 if drawn else 0.5 if samples.cache.kept else 0
        features = Features(
            clips,
            frontend,
            view=view,
            cache_mb=(1 - shared) * config.data.cache_mb,
            samples=samples,
            borrow=not drawn,
        )
        self._parts[title] = features
        return features


def workers_of(config: TrainConfig, features: Features) -> int:
    """Threads that prepare batches of a run."""
    if config.data.workers is not None:
        return config.data.workers
    return workers_for(features, torch.device("cpu") if config.run.cpu else best_device())


def _resolution(phase: Phase) -> tuple[str, float] | None:
    """What decides the frames of a clip in a phase; None: those of the finished model."""
    if phase.factor == 1 or phase.operator == "patch":
        return None
    return phase.operator, phase.factor
