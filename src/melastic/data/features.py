"""Log-mels of clips: computed when asked for, and kept in memory while there is room."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from melastic.config import FrontendConfig
from melastic.data.manifest import Clip
from melastic.devices import one_thread
from melastic.errors import InputError
from melastic.frontend.audio import duration_s, load_audio
from melastic.frontend.compress import pool_time
from melastic.frontend.normalize import Statistics, frames_of, measure, raw_spectrogram_of
from melastic.patches.dials import Pooling
from melastic.patches.view import View

OnClip = Callable[[int, int], None]
"""Told about progress: clips done, clips in all."""


class Features:
    """Raw log-mels of clips; computed when asked for, and kept while there is room."""

    def __init__(
        self,
        clips: Sequence[Clip],
        frontend: FrontendConfig,
        *,
        view: View | None = None,
        cache_mb: int = 0,
        keep: Literal["spectrograms", "waveforms"] = "spectrograms",
    ) -> None:
        """Name the clips.

        Args:
            clips: from a manifest.
            frontend: how spectrograms are computed.
            view: time resolution; None: the front end's.
            cache_mb: most memory for what is kept (MB).
            keep: log-mels of this view, or samples, which give log-mels of any view.
        """
        self.clips = clips
        self.frontend = frontend
        self.view = view or View()
        self.room = cache_mb * 1_000_000
        self.keep = keep
        self.kept: dict[int, Tensor] = {}
        self._frames: dict[int, int] = {}

    def __getitem__(self, index: int) -> Float[Tensor, "freq _"]:
        """Log-mels of one clip in the time resolution of the view, not normalised.

        Raises:
            InputError: if it cannot be read, naming the file.
        """
        return self.at(index, self.view)

    def at(self, index: int, view: View) -> Float[Tensor, "freq _"]:
        """Log-mels of one clip in the time resolution of any view, not normalised.

        Raises:
            InputError: if it cannot be read or is too short for the view, naming the file.
        """
        ready = self.keep == "spectrograms" and _resolution(view) == _resolution(self.view)
        if ready and index in self.kept:
            return self.kept[index]
        try:
            waveform = self._waveform(index)
            spectrogram = raw_spectrogram_of(waveform, self.frontend, hop_ms=view.hop_ms)
            spectrogram = pool_time(spectrogram, view.pooling)
        except InputError as error:
            path = str(self.clips[index].path)
            raise error if path in str(error) else InputError(f"{path}: {error}") from None
        if ready:
            self._remember(index, spectrogram)
        return spectrogram

    def _waveform(self, index: int) -> Float[Tensor, " _"]:
        """Samples of one clip."""
        if self.keep == "waveforms" and index in self.kept:
            return self.kept[index]
        clip = self.clips[index]
        waveform = load_audio(
            clip.path,
            sample_rate=self.frontend.sample_rate,
            start_s=clip.start_s,
            end_s=clip.end_s,
        )
        if self.keep == "waveforms":
            self._remember(index, waveform)
        return waveform

    def _remember(self, index: int, value: Tensor) -> None:
        """Keep something while there is room."""
        if value.nbytes <= self.room:
            self.room -= value.nbytes
            self.kept[index] = value
        else:
            self.room = 0

    @property
    def complete(self) -> bool:
        """Whether every clip is kept."""
        return len(self.kept) == len(self.clips)

    def frames(self, index: int) -> int:
        """Frames of one clip in the view; read off the file's header where it is not kept.

        Raises:
            InputError: if the header cannot be read, naming the file.
        """
        if index in self.kept and self.keep == "spectrograms":
            return self.kept[index].shape[1]
        if index not in self._frames:
            clip, frontend = self.clips[index], self.frontend
            if index in self.kept:
                seconds = len(self.kept[index]) / frontend.sample_rate
            else:
                whole_s = duration_s(clip.path)
                end_s = whole_s if clip.end_s is None else min(clip.end_s, whole_s)
                seconds = end_s - clip.start_s
            samples = round(seconds * frontend.sample_rate)
            whole = frames_of(samples, frontend, hop_ms=self.view.hop_ms)
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
        self,
        *,
        most: int = 2000,
        left_out: Collection[int] = (),
        max_unreadable: int = 0,
        on_clip: OnClip | None = None,
    ) -> Statistics:
        """Mean and deviation over at most so many clips, evenly spaced.

        Args:
            most: how many.
            left_out: clips that are known to be unreadable.
            max_unreadable: how many clips may fail, those included, before it is an error.
            on_clip: told about progress.

        Raises:
            InputError: if more clips than allowed cannot be read, or all are equal.
        """
        count = min(most, len(self.clips))
        chosen = [i * len(self.clips) // count for i in range(count)]
        failed: set[int] = set(left_out)

        def readable() -> Iterator[Tensor]:
            for done, index in enumerate(chosen, start=1):
                try:
                    if index not in failed:
                        yield self[index]
                except InputError:
                    failed.add(index)
                    if len(failed) > max_unreadable:
                        raise
                if on_clip:
                    on_clip(done, len(chosen))

        return measure(readable())


def too_many_unreadable(reasons: Sequence[str], allowed: int) -> InputError:
    """The error for clips that cannot be read."""
    return InputError(
        f"{reasons[0]} ({len(reasons)} unreadable, {allowed} allowed; mend the manifest, or allow "
        "more with max_unreadable)"
    )


def _resolution(view: View) -> tuple[float | None, Pooling]:
    """What decides the frames of a clip."""
    return view.hop_ms, view.pooling
