"""Which clips make up which batch: a pure function of the seed and the epoch."""

from collections import Counter
from collections.abc import Container, Sequence

import torch

from melastic.data.manifest import Clip
from melastic.errors import InputError
from melastic.randomness import generator


class TokenBudgetSampler:
    """Batches of clips that together hold at most a number of tokens.

    The batches of an epoch are filled about equally, so that none is a small remainder.

    Source: the token budget is ElasticAST's (arXiv:2407.08691); there it fills rows.
    """

    def __init__(
        self,
        tokens: Sequence[int],
        *,
        batch_tokens: int,
        seed: int,
        weights: Sequence[float] | None = None,
        left_out: Container[int] = (),
    ) -> None:
        """Plan batches.

        Args:
            tokens: tokens of each clip.
            batch_tokens: most tokens in a batch.
            seed: seed of the run.
            weights: how often each clip is drawn, relative to the others; clips are then drawn with
                replacement. None: every clip once an epoch.
            left_out: clips that are in no batch, such as unreadable ones.

        Raises:
            InputError: if a clip alone exceeds the budget.
        """
        if max(tokens) > batch_tokens:
            raise InputError(
                f"a batch must hold the longest clip, it has {max(tokens)} tokens and batch_tokens "
                f"is {batch_tokens}; raise batch_tokens, or cut clips with view.seconds"
            )
        self.tokens = list(tokens)
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.left_out = left_out
        self.weights = None
        if weights is not None:
            own = [0.0 if i in left_out else weight for i, weight in enumerate(weights)]
            self.weights = torch.tensor(own, dtype=torch.float64)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Indices of the clips of each batch of an epoch."""
        draw = generator(self.seed, "order", epoch)
        if self.weights is None:
            order = torch.randperm(len(self.tokens), generator=draw).tolist()
        else:
            order = torch.multinomial(
                self.weights, len(self.tokens), replacement=True, generator=draw
            ).tolist()
        return self.batches([i for i in order if i not in self.left_out])

    def batches(self, order: Sequence[int]) -> list[list[int]]:
        """Cut a sequence of clips into batches."""
        total = sum(self.tokens[i] for i in order)
        share = total / -(-total // self.batch_tokens)
        batches: list[list[int]] = [[]]
        filled, passed = 0, 0
        for i in order:
            full = filled + self.tokens[i] > self.batch_tokens
            if batches[-1] and (full or passed >= share * len(batches)):
                batches.append([])
                filled = 0
            batches[-1].append(i)
            filled += self.tokens[i]
            passed += self.tokens[i]
        return batches


def dealt(tokens: Sequence[int], slices: int) -> list[list[int]]:
    """Share clips out so that slices hold about equally many tokens.

    Longest first, each to the slice with the fewest tokens so far; within a slice clips keep their
    order. Some slices are empty where there are fewer clips.

    Args:
        tokens: tokens of each clip.
        slices: how many.

    Returns:
        Places in ``tokens`` that each slice gets.
    """
    places: list[list[int]] = [[] for _ in range(slices)]
    filled = [0] * slices
    for index in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        least = filled.index(min(filled))
        places[least].append(index)
        filled[least] += tokens[index]
    return [sorted(own) for own in places]


def balanced_weights(clips: Sequence[Clip]) -> list[float]:
    """Weights under which rare labels are drawn about as often as frequent ones.

    Source: YuanGongND/ast: the sum over a clip's labels of ``1000 / (clips with it + 0.01)``.
    """
    counts = Counter(label for clip in clips for label in clip.labels)
    return [sum(1000 / (counts[label] + 0.01) for label in clip.labels) for clip in clips]
