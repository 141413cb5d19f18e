"""The five dials of a view as options of a command."""

from dataclasses import dataclass

from melastic.options import Hop, Length, PatchSize, PoolingOf, Share
from melastic.patches.dials import Pooling
from melastic.patches.view import View


@dataclass(frozen=True, kw_only=True)
class ViewArguments:
    """How clips are seen."""

    patch: PatchSize = None
    """Patch size, such as 16 or 128x4 (mel bins x frames); None: the model's own."""
    hop_ms: Hop = None
    """Frame shift (ms); None: the model's own."""
    pool: PoolingOf = Pooling()
    """Temporal pooling of the spectrogram: none, or mean2, max4 and their like (N frames become
    one)."""
    seconds: Length = None
    """Longest stretch of a clip, from its beginning (s); None: all of it."""
    keep: Share = 1.0
    """Share of each clip's tokens that is used, evenly drawn."""

    @property
    def view(self) -> View:
        """What they say."""
        return View(
            patch=self.patch,
            hop_ms=self.hop_ms,
            pooling=self.pool,
            seconds=self.seconds,
            keep=self.keep,
        )
