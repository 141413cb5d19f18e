"""Samples and log-mels of clips: computed when asked for, kept in memory while there is room."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from jaxtyping import Float
from torch import Tensor

from melastic.config import FrontendConfig
from melastic.data.manifest import Clip
from melastic.devices import compute_alone, one_thread, usable_cores
from melastic.errors import InputError
from melastic.frontend.audio import duration_s, load_audio
from melastic.frontend.compress import pool_time
from melastic.frontend.normalize import Statistics, frames_of, measure, raw_spectrogram_of
from melastic.patches.view import View

OnClip = Callable[[int, int], None]
"""Told about progress: clips done, clips in all."""
BLOCK = 256
"""Clips that are read before the progress of the first is told."""
_LOCK = threading.Lock()
"""Held while a cache changes; not a cache's own, so that a cache can be copied and pickled."""


class Cache:
    """Tensors by the number of a clip, as long as there is room. Threads may share it."""

    def __init__(self, megabytes: float, *, lender: "Cache | None" = None) -> None:
        """Begin empty.

        Args:
            megabytes: most that is kept (MB).
            lender: another one, which gives up what it keeps and its room when this one is full.
        """
        self.room = int(megabytes * 1_000_000)
        self.kept: dict[int, Tensor] = {}
        self.lender = lender
        self.full = self.room <= 0 and lender is None

    def keep(self, index: int, value: Tensor) -> None:
        """Keep a tensor, or, where it does not fit, this one and all further ones not.

        Args:
            index: number of its clip.
            value: the tensor.
        """
        with _LOCK:
            if self.full or index in self.kept:
                return
            if value.nbytes > self.room:
                self._borrow()
            if value.nbytes > self.room:
                self.full = True
                return
            self.room -= value.nbytes
            self.kept[index] = value

    def borrow(self) -> None:
        """Take what the lender keeps, and its room, which it does not get back."""
        with _LOCK:
            self._borrow()

    def _borrow(self) -> None:
        """The same, while the lock is held."""
        if self.lender is not None:
            self.room += self.lender.room + sum(x.nbytes for x in self.lender.kept.values())
            self.lender.kept, self.lender.room, self.lender.full = {}, 0, True


class Samples:
    """Decoded clips."""

    def __init__(self, clips: Sequence[Clip], sample_rate: int, *, cache_mb: float = 0) -> None:
        """Name the clips.

        Args:
            clips: from a manifest.
            sample_rate: in Hz; other files are resampled.
            cache_mb: most memory for what is kept (MB).
        """
        self.clips = clips
        self.sample_rate = sample_rate
        self.cache = Cache(cache_mb)

    def __getitem__(self, index: int) -> Float[Tensor, " _"]:
        """Samples of one clip.

        Raises:
            InputError: if it cannot be read, naming the file.
        """
        kept = self.cache.kept.get(index)
        if kept is not None:
            return kept
        clip = self.clips[index]
        waveform = load_audio(
            clip.path, sample_rate=self.sample_rate, start_s=clip.start_s, end_s=clip.end_s
        )
        self.cache.keep(index, waveform)
        return waveform

    def duration_s(self, index: int) -> float:
        """Duration of one clip (s), read off the file's header where it is not kept.

        Raises:
            InputError: if the header cannot be read, naming the file.
        """
        kept = self.cache.kept.get(index)
        if kept is not None:
            return len(kept) / self.sample_rate
        clip = self.clips[index]
        whole_s = duration_s(clip.path)
        return (whole_s if clip.end_s is None else min(clip.end_s, whole_s)) - clip.start_s


class Features:
    """Raw log-mels of clips; computed when asked for, and kept while there is room."""

    def __init__(
        self,
        clips: Sequence[Clip],
        frontend: FrontendConfig,
        *,
        view: View | None = None,
        cache_mb: float = 0,
        samples: Samples | None = None,
        borrow: bool = False,
    ) -> None:
        """Name the clips.

        Args:
            clips: from a manifest.
            frontend: how spectrograms are computed.
            view: time resolution of those that are kept; None: the front end's.
            cache_mb: most memory for them (MB).
            samples: of the same clips, from which log-mels of any view are computed; None: each is
                decoded when it is asked for.
            borrow: whether those of the samples that are kept make room for log-mels, where there
                is not enough.
        """
        self.clips = clips
        self.frontend = frontend
        self.view = view or View()
        self.samples = samples or Samples(clips, frontend.sample_rate)
        self.cache = Cache(cache_mb, lender=self.samples.cache if borrow else None)
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
        ready = view.resolution == self.view.resolution
        kept = self.cache.kept.get(index) if ready else None
        if kept is not None:
            return kept
        try:
            spectrogram = raw_spectrogram_of(self.samples[index], self.frontend, hop_ms=view.hop_ms)
            spectrogram = pool_time(spectrogram, view.pooling)
        except InputError as error:
            path = str(self.clips[index].path)
            raise error if path in str(error) else InputError(f"{path}: {error}") from None
        if ready:
            self.cache.keep(index, spectrogram)
        return spectrogram

    @property
    def in_memory(self) -> Collection[int]:
        """Clips that need not be decoded any more."""
        return (self.cache.kept or self.samples.cache.kept).keys()

    @property
    def complete(self) -> bool:
        """Whether those are all."""
        return len(self.in_memory) == len(self.clips)

    def frames(self, index: int) -> int:
        """Frames of one clip in the view; read off the file's header where it is not kept.

        Raises:
            InputError: if the header cannot be read, naming the file.
        """
        kept = self.cache.kept.get(index)
        if kept is not None:
            return kept.shape[1]
        if index not in self._frames:
            count = round(self.samples.duration_s(index) * self.frontend.sample_rate)
            whole = frames_of(count, self.frontend, hop_ms=self.view.hop_ms)
            self._frames[index] = max(1, whole // self.view.pooling.factor)
        return self._frames[index]

    def fill(self, *, max_unreadable: int = 0, on_clip: OnClip | None = None) -> dict[int, str]:
        """Keep clips until the room is used up, and read the headers of the others.

        Files are decoded on all cores; log-mels alone are too short for threads to help.

        Args:
            max_unreadable: how many clips may fail before it is an error.
            on_clip: told about progress.

        Returns:
            Why clips cannot be read, by index.

        Raises:
            InputError: if more clips than allowed cannot be read; names the first.
        """
        failed: dict[int, str] = {}
        count = len(self.clips)
        threads = usable_cores() if len(self.samples.cache.kept) < count else 1
        with one_thread(), ThreadPoolExecutor(threads, initializer=compute_alone) as pool:
            for start in range(0, count, BLOCK):
                block = range(start, min(start + BLOCK, count))
                for index, reason in zip(block, pool.map(self._reason, block), strict=True):
                    if reason is not None:
                        failed[index] = reason
                    if len(failed) > max_unreadable:
                        pool.shutdown(cancel_futures=True)
                        raise too_many_unreadable(list(failed.values()), max_unreadable)
                    if on_clip:
                        on_clip(index + 1, count)
        return failed

    def _reason(self, index: int) -> str | None:
        """Why a clip cannot be read; None: it can, and is kept if there is room."""
        try:
            if not (self.cache.full and self.samples.cache.full):
                self[index]
            self.frames(index)
        except InputError as error:
            return str(error)
        return None

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
