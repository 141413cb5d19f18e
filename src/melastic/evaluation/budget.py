"""Classify within a budget: the most accurate view of the measured curve that a clip can afford."""

import math
import statistics
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from melastic.classifier import Classifier, Prediction
from melastic.config import CurvePoint
from melastic.errors import InputError, about
from melastic.evaluation.seen import (
    clip_through,
    frames_through,
    gmacs_through,
    inputs_through,
)
from melastic.frontend.audio import PathOrWaveform, samples_of
from melastic.patches.view import View

TIMES = 3
"""Times that a view is run to learn how long it takes; the median counts."""
BEYOND = 5
"""Times of the budget after which one run is enough."""
STEPS = 4
"""Lengths an octave at which views are timed."""


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
        """Of views and lengths that were tried."""

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
        budget_ms = self.budget_ms
        if budget_ms is None:
            return within[0].view
        front = _front(within, costs)
        first = bisect_left(front, True, key=lambda p: self._time_ms(p.view, samples) <= budget_ms)
        if first < len(front):
            return front[first].view
        taken = self._time_ms(front[-1].view, samples)
        raise InputError(
            f"no measured view is within {budget_ms:g} ms for this clip on this machine: the "
            f"cheapest ({front[-1].view}) takes {taken:.3g} ms; try --budget-ms "
            f"{_rounded_up(taken)}"
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
        waveform, named = samples_of(path_or_waveform, self.model.config.frontend.sample_rate)
        with about(named):
            view = self.choose(len(waveform))
            logits = self.model(*clip_through(self.model, waveform, view))
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

    @torch.no_grad()
    def _time_ms(self, view: View, samples: int) -> float:
        """Time of the model for a clip of about this length, not shorter, on this machine (ms).

        A view whose first run, which also pays for what is done once, is far beyond the budget is
        not run again.
        """
        frontend = self.model.config.frontend
        frames = frames_through(samples, frontend, view)
        if frontend.fixed_frames is None:
            frames = _stepped_up(frames)
        if (view, frames) not in self._times:
            clip = self.model.patch_embed.bias.new_zeros(frontend.num_mels, frames)
            taken = [self._run_ms(clip, view)]
            if taken[0] <= BEYOND * (self.budget_ms or math.inf):
                taken = [self._run_ms(clip, view) for _ in range(TIMES)]
            self._times[view, frames] = statistics.median(taken)
        return self._times[view, frames]

    def _run_ms(self, clip: Tensor, view: View) -> float:
        """Time of one run of the model (ms)."""
        started = time.perf_counter()
        self.model(*inputs_through(self.model.config, clip, view)).cpu()
        return 1000 * (time.perf_counter() - started)


def _front(points: Sequence[CurvePoint], costs: Mapping[CurvePoint, float]) -> list[CurvePoint]:
    """Those of some points, best first, that cost less than all better ones."""
    front: list[CurvePoint] = []
    for point in points:
        if not front or costs[point] < costs[front[-1]]:
            front.append(point)
    return front


def _stepped_up(frames: int) -> int:
    """The next of a few lengths an octave, so that clips of like lengths are timed once."""
    return math.ceil(2 ** (math.ceil(STEPS * math.log2(frames)) / STEPS))


def _rounded_up(value: float) -> str:
    """A number with two digits, not below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.12g}"
