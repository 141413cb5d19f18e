"""The five dials of a view as options of a command."""

from dataclasses import dataclass
from pathlib import Path

from melastic.options import Hop, Length, PatchSize, PoolingOf, Share
from melastic.patches.dials import Pooling, size_text
from melastic.patches.view import View
from melastic.progress import note
from melastic.training.run_folder import is_run, read_run_config


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


def say_if_unlike(model: str, view: View) -> None:
    """Say that a run was trained through another view, where no dial is turned.

    Args:
        model: run folder, model folder, or name.
        view: what the dials say.
    """
    if view == View() and is_run(Path(model)):
        own = read_run_config(Path(model)).view
        if own != View():
            note(
                "clips are seen the model's own way, but the run was trained and scored through "
                f"the view '{own}'; give {_words(own)} to see them so"
            )


def _words(view: View) -> str:
    """A view as options."""
    given = (
        ("--patch", view.patch and size_text(view.patch)),
        ("--hop-ms", view.hop_ms and f"{view.hop_ms:g}"),
        ("--pool", view.pooling.factor > 1 and str(view.pooling)),
        ("--seconds", view.seconds and f"{view.seconds:g}"),
        ("--keep", view.keep < 1 and f"{view.keep:g}"),
    )
    return " ".join(f"{option} {value}" for option, value in given if value)
