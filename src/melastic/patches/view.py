"""A view: how a clip becomes tokens. Everything that is flexible is a field of it."""

from dataclasses import dataclass

from melastic.errors import InputError
from melastic.options import Hop, Length, PatchSize, PoolingOf, Share
from melastic.patches.dials import Pooling, check_hop, check_length, check_share, size_text
from melastic.patches.grid import freq_time


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a clip becomes tokens; ``None`` leaves a choice to the model."""

    patch: PatchSize = None
    """Patch size (mel bins, frames); one number means square."""
    hop_ms: Hop = None
    """Step between frames (ms)."""
    pooling: PoolingOf = Pooling()
    """Temporal pooling of the spectrogram."""
    seconds: Length = None
    """Longest stretch that is cut from the clip (s)."""
    keep: Share = 1.0
    """Share of the tokens that is kept."""

    def __post_init__(self) -> None:
        """Refuse what no clip could be seen through."""
        if self.patch is not None:
            freq_time(self.patch)
        if self.hop_ms is not None:
            check_hop(self.hop_ms)
        if self.seconds is not None:
            check_length(self.seconds)
        check_share(self.keep)
        if not isinstance(self.pooling, Pooling):
            raise InputError(
                f"a view's pooling is a melastic.Pooling, got {self.pooling!r}; try "
                'melastic.Pooling(kind="mean", factor=2)'
            )

    def step_ms(self, hop_ms: float) -> float:
        """Time from one frame that the model sees to the next (ms).

        Args:
            hop_ms: the model's own frame shift (ms).
        """
        return (hop_ms if self.hop_ms is None else self.hop_ms) * self.pooling.factor

    @property
    def resolution(self) -> tuple[float | None, Pooling]:
        """What decides the frames of a clip: views that have it in common share spectrograms."""
        return self.hop_ms, self.pooling

    def __str__(self) -> str:
        """Such as ``patch 16, hop 10 ms, pool mean2, 1 s, keep 0.5``; what is usual is left out."""
        words = [
            None if self.patch is None else f"patch {size_text(self.patch)}",
            None if self.hop_ms is None else f"hop {self.hop_ms:g} ms",
            None if self.pooling.factor == 1 else f"pool {self.pooling}",
            None if self.seconds is None else f"{self.seconds:g} s",
            None if self.keep == 1 else f"keep {self.keep:g}",
        ]
        return ", ".join(word for word in words if word) or "the model's own view"
