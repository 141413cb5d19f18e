"""A step's clips in parts that fit the token budget, whatever views are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from melastic.config import ModelConfig
from melastic.data.loader import ClipDataset, seen_frames
from melastic.data.sampler import dealt
from melastic.evaluation.cost import tokens_of
from melastic.patches.grid import FreqTime
from melastic.training.config import OptimConfig
from melastic.training.curriculum import Curriculum


@dataclass(frozen=True, slots=True)
class Parts:
    """Shares the clips of a step out among processes and among parts that are accumulated."""

    optim: OptimConfig
    curriculum: Curriculum
    clips: ClipDataset
    model: ModelConfig

    def of(
        self, indices: Sequence[int], epoch: int, step: int, *, processes: int
    ) -> list[list[int]]:
        """The parts of a step, as many for each process, those of one process in a row.

        Views with more tokens than the run's own have more parts, so that the parts that are
        computed at the same time exceed the budget by no more than a clip for each process.

        Args:
            indices: the step's clips.
            epoch: which their views are drawn for.
            step: which the patch size is drawn for.
            processes: among which clips are shared out.
        """
        patch = self.curriculum.patch(epoch, step)
        tokens = [self.tokens(epoch, index, patch) for index in indices]
        each = max(self.optim.accumulate, -(-sum(tokens) // self.optim.batch_tokens))
        places = dealt(tokens, each * processes)
        return [[indices[i] for i in own] for own in places]

    def tokens(self, epoch: int, index: int, patch: FreqTime | None) -> int:
        """Most tokens of a clip in the view that it has in an epoch.

        Args:
            epoch: which the view is drawn for.
            index: of the clip.
            patch: patch size; None: the model's own.
        """
        frontend, features = self.model.frontend, self.clips.features
        view, hop_ms = self.clips.view(epoch, index), frontend.hop_ms
        seen = features.frames(index) * features.view.step_ms(hop_ms) / view.step_ms(hop_ms)
        frames = seen_frames(max(1, round(seen)), view, frontend)
        if self.model.patches.remainder == "crop":
            frames = max(frames, (patch or self.model.patches.patch).time)
        size = FreqTime(frontend.num_mels, frames)
        return tokens_of(self.model, size, patch=patch, keep=self.curriculum.most_kept)
