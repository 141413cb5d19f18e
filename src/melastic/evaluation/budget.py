"""Classify within a budget: the most accurate view of the measured curve that a clip can afford."""

import math
import statistics
import time

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.classifier import Classifier, Prediction
from melastic.config import CurvePoint
from melastic.errors import InputError
from melastic.evaluation.evaluate import kept_patches
from melastic.evaluation.seen import frames_through, gmacs_through, spectrogram_through
from melastic.frontend.audio import PathOrWaveform, samples_of
from melastic.patches.view import View

TIMES = 3
"""Times that a view is run to learn how long it takes; the median counts."""


class Budget:
    """Chooses how clips are seen, each as well as it can afford."""

    def __init__(
        self, model: Classifier, *, gmacs: float | None = None, budget_ms: float | None = None
    ) -> None:
        """Set the budget.

        Args:
            model: with a measured curve.
            gmacs: most multiply-adds for a clip (10^9); None: any number.
            budget_ms: most time of the model for a clip, on this machine (ms); None: any time.

        Raises:
            InputError: if the model has no curve, or a budget is not positive.
        """
        for name, value in (("gmacs", gmacs), ("budget_ms", budget_ms)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is a positive number, got {value}; try 1")
        if not model.config.curve:
            raise InputError(
                f"a budget needs a measured curve, {model.config.name} has none; measure one with "
                "'melastic sweep MODEL MANIFEST --out DIR --store'"
            )
        self.model = model
        self.gmacs = gmacs
        self.budget_ms = budget_ms
        self._times: dict[tuple[View, int], float] = {}

    def choose(self, samples: int) -> View:
        """The most accurate view that a clip can afford; of equals the cheapest.

        Args:
            samples: of the clip, at the model's rate.

        Raises:
            InputError: if it can afford none; names the cheapest.
        """
        costs = self._costs(samples)
        best = sorted(costs, key=lambda point: (-point.accuracy, costs[point]))
        within = [p for p in best if self.gmacs is None or costs[p] <= self.gmacs]
        if not within:
            least = min(costs, key=costs.__getitem__)
            raise InputError(
                f"no measured view is within {self.gmacs:g} GMACs for this clip: the cheapest "
                f"({least.view}) costs {costs[least]:.4g}; try --gmacs {_rounded_up(costs[least])}"
            )
        if self.budget_ms is None:
            return within[0].view
        for point in within:
            if self._time_ms(point.view, samples) <= self.budget_ms:
                return point.view
        taken = {point: self._time_ms(point.view, samples) for point in within}
        least = min(taken, key=taken.__getitem__)
        raise InputError(
            f"no measured view is within {self.budget_ms:g} ms for this clip on this machine: the "
            f"fastest ({least.view}) takes {taken[least]:.3g} ms; try --budget-ms "
            f"{_rounded_up(taken[least])}"
        )

    @torch.no_grad()
    def classify(
        self, path_or_waveform: PathOrWaveform, *, top: int = 5
    ) -> tuple[list[Prediction], View]:
        """The likeliest classes of one clip, and the view that was used.

        Args:
            path_or_waveform: an audio file, or samples (tensor, array) at the model's sample rate.
            top: how many classes.

        Raises:
            InputError: if the clip cannot be read, or can afford no view.
        """
        frontend = self.model.config.frontend
        waveform, named = samples_of(path_or_waveform, frontend.sample_rate)
        try:
            view = self.choose(len(waveform))
            bias = self.model.patch_embed.bias
            spectrogram = spectrogram_through(waveform.to(bias.device), frontend, view)
            logits = self._logits(spectrogram.to(bias), view)
        except InputError as error:
            raise InputError(f"{named}: {error}") from None
        return self.model.likeliest(logits[0], top), view

    def _costs(self, samples: int) -> dict[CurvePoint, float]:
        """Multiply-adds (10^9) of the measured views that fit a clip."""
        costs: dict[CurvePoint, float] = {}
        refused = ""
        for point in self.model.config.curve:
            try:
                costs[point] = gmacs_through(samples, self.model.config, point.view)
            except InputError as error:
                refused = str(error)
        if not costs:
            raise InputError(f"no measured view fits this clip: {refused}")
        return costs

    def _logits(self, spectrogram: Tensor, view: View) -> Float[Tensor, "1 classes"]:
        """Logits of one clip through a view."""
        config, kept = self.model.config, None
        if view.keep < 1:
            kept = [kept_patches(config, spectrogram.shape[1], view, 0)]
        step_ms = view.step_ms(config.frontend.hop_ms)
        return self.model([spectrogram], view.patch, step_ms, kept)

    @torch.no_grad()
    def _time_ms(self, view: View, samples: int) -> float:
        """Time of the model for a clip of this length, on this machine (ms)."""
        frontend = self.model.config.frontend
        frames = frames_through(samples, frontend, view)
        if (view, frames) not in self._times:
            clip = self.model.patch_embed.bias.new_zeros(frontend.num_mels, frames)
            self._logits(clip, view)
            taken = []
            for _ in range(TIMES):
                started = time.perf_counter()
                self._logits(clip, view).cpu()
                taken.append(time.perf_counter() - started)
            self._times[view, frames] = 1000 * statistics.median(taken)
        return self._times[view, frames]


def _rounded_up(value: float) -> str:
    """A number with two digits, not below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"
