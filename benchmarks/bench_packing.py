"""Clips of different lengths: attention and whole models, beside padding and the official rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

import melastic
from benchmarks.report import in_turn, ratio, write
from melastic.encoders.attention import attention
from melastic.patches.batch import Layout
from melastic.patches.packing import best_fit, fill_ratio
from melastic.randomness import generator

HEADS, DIM, ROWS = 12, 64, 2048
COLUMN = 8
"""Patches of 16 x 16 in a column of 128 mel bins, which spans 0.16 s."""
SECONDS_OF_A_COLUMN = 0.16
BLOCKS, CLIPS = 3, 12
"""Of the whole models: a padded batch of all clips would take a minute a step."""


def lengths_of(mix: str) -> list[int]:
    """Tokens of each clip of a mix, drawn once and for all."""
    if mix in GIVEN:
        return list(GIVEN[mix])
    draw = generator(0, "packing", mix)
    clips = int(mix.split()[0])
    if "digits" in mix:
        seconds = (0.42 * torch.randn(clips, generator=draw).mul(0.35).exp()).clamp(0.2, 2)
    else:
        seconds = (6 * torch.randn(clips, generator=draw).mul(0.9).exp()).clamp(1, 30)
    columns = (seconds / SECONDS_OF_A_COLUMN).round().clamp_min(1).long()
    return (COLUMN * columns).tolist()


GIVEN = {"8 clips, 2-10 s": (504, 432, 384, 320, 240, 480, 168, 96)}
"""A draw of like lengths, in whose rows most pairs are of different clips."""
MIXES = (
    "128 digits, 0.2-2 s",
    *GIVEN,
    "8 clips, log-normal 1-30 s",
    "32 clips, log-normal 1-30 s",
)


def next_fit(lengths: Sequence[int]) -> list[list[int]]:
    """The official packing: clips in their order, a new row where the next does not fit."""
    rows: list[list[int]] = [[]]
    for index, length in enumerate(lengths):
        if sum(lengths[i] for i in rows[-1]) + length > ROWS:
            rows.append([])
        rows[-1].append(index)
    return rows


def pairs_of(lengths: Sequence[int]) -> float:
    """Pairs of places that the official packing computes, for each that is of one clip."""
    rows = next_fit(lengths)
    longest = max(sum(lengths[i] for i in row) for row in rows)
    return len(rows) * longest**2 / sum(length**2 for length in lengths)


def placed(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Where each token lies among the places of padded rows, and which clip each place holds."""
    longest = max(sum(lengths[i] for i in row) for row in rows)
    clip = torch.full((len(rows), longest), -1)
    where: dict[int, Tensor] = {}
    for number, row in enumerate(rows):
        first = 0
        for i in row:
            where[i] = number * longest + torch.arange(first, first + lengths[i])
            clip[number, first : first + lengths[i]] = i
            first += lengths[i]
    return torch.cat([where[i] for i in range(len(lengths))]), clip


def in_rows(
    lengths: Sequence[int], rows: Sequence[Sequence[int]], *, explicit: bool
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention over padded rows: explicit softmax over a dense mask, or torch's own attention."""
    places, clip = placed(lengths, rows)
    mask = (clip[:, None, :, None] == clip[:, None, None, :]) & (clip >= 0)[:, None, None, :]
    padding = (clip < 0)[:, None, :, None]  # so that no query is left without a key
    allowed = mask | padding

    def padded(x: Tensor) -> Tensor:
        rows_of = x.new_zeros(clip.numel(), *x.shape[1:]).index_copy(0, places, x)
        return rows_of.unflatten(0, tuple(clip.shape)).transpose(1, 2)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = padded(q), padded(k), padded(v)
        if explicit:
            scores = q @ k.transpose(-2, -1)
            scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
            out = scores.softmax(-1) @ v
        else:
            out = functional.scaled_dot_product_attention(q, k, v, allowed)
        return out.transpose(1, 2).flatten(0, 1)[places]

    return run


def one_by_one(lengths: Sequence[int]) -> list[list[int]]:
    """A padded batch: one clip in each row."""
    return [[i] for i in range(len(lengths))]


def attentions(lengths: list[int]) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Each way of computing attention over a ragged batch."""
    layout = Layout(tuple(sorted(lengths)))
    rows = best_fit(lengths, ROWS)
    return {
        "melastic": lambda q, k, v: attention(q, k, v, layout),
        "padded batch, key mask": in_rows(lengths, one_by_one(lengths), explicit=False),
        "best-fit rows, mask": in_rows(lengths, rows, explicit=False),
        "official: rows in order, dense mask, explicit softmax": in_rows(
            lengths, next_fit(lengths), explicit=True
        ),
    }


def timed_attention(mix: str, *, backward: bool) -> list[list[str]]:
    """Rows of the table for one mix."""
    lengths = lengths_of(mix)
    q, k, v = torch.randn(3, sum(lengths), HEADS, DIM, requires_grad=backward)
    weights = torch.randn(sum(lengths), HEADS, DIM)

    def call(run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
        if not backward:
            return lambda: run(q, k, v)
        return lambda: torch.autograd.grad((run(q, k, v) * weights).sum(), (q, k, v))

    seconds = in_turn({name: call(run) for name, run in attentions(lengths).items()}, rounds=7)
    what = "forward + backward" if backward else "forward"
    ours = seconds["melastic"]
    return [
        [mix, what, name, f"{1000 * min(times):.0f}", f"{ratio(times, ours):.1f}"]
        for name, times in seconds.items()
    ]


class Padded(nn.Module):
    """The same model on a padded batch: every clip as long as the longest, with a key mask."""

    def __init__(self, model: melastic.Classifier, lengths: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        columns = torch.tensor(lengths) // COLUMN
        held = torch.arange(int(columns.max())) < columns[:, None]
        self.mask = held.repeat(1, COLUMN)[:, None, None, :]  # tokens: freq outside, time inside

    def forward(self, spectrograms: Tensor) -> Tensor:
        from melastic.encoders import attention as module

        dense = module._dense

        def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            return dense(q, k, v, self._mask(q) if mask is None else mask)

        try:
            module._dense = masked
            return self.model(spectrograms)
        finally:
            module._dense = dense

    def _mask(self, q: Tensor) -> Tensor:
        """One row for each query: all tokens in the encoder, one in the pooling."""
        return self.mask.expand(-1, -1, q.shape[1], -1)


def timed_models(mix: str) -> list[list[str]]:
    """Training steps of a whole model: ragged, padded, and equal lengths of as many tokens."""
    lengths = lengths_of(mix)[:CLIPS]
    frames = [16 * length // COLUMN for length in lengths]
    size = (128, max(frames))  # beyond its table a clip's positions depend on the padding
    model = melastic.create_model("elasticast-base", num_classes=50, depth=BLOCKS, input_size=size)
    model = model.train()
    clips = [torch.randn(128, n) for n in frames]
    padded = torch.stack([functional.pad(clip, (0, max(frames) - clip.shape[1])) for clip in clips])
    equal = torch.randn(len(clips), 128, 16 * round(sum(frames) / len(frames) / 16))
    beside = Padded(model, lengths)
    with torch.no_grad():
        torch.testing.assert_close(beside(padded), model(clips), atol=1e-3, rtol=1e-3)

    def step(run: Callable[[], Tensor]) -> Callable[[], object]:
        parameters = [p for p in model.parameters() if p.requires_grad]
        return lambda: torch.autograd.grad(run().logsumexp(1).sum(), parameters)

    seconds = in_turn(
        {
            "melastic": step(lambda: model(clips)),
            "padded batch": step(lambda: beside(padded)),
            "equal lengths, as many tokens": step(lambda: model(equal)),
        },
        rounds=5,
    )
    tokens = {name: sum(lengths) for name in seconds}
    tokens["equal lengths, as many tokens"] = len(clips) * equal.shape[2] * COLUMN // 16
    ours = seconds["melastic"]
    return [
        [
            mix,
            name,
            f"{tokens[name] / min(times):,.0f}",
            f"{ratio(times, ours) * tokens['melastic'] / tokens[name]:.2f}",
        ]
        for name, times in seconds.items()
    ]


def main() -> None:
    torch.manual_seed(0)
    rows = [
        row
        for mix in MIXES
        for backward in (False, True)
        for row in timed_attention(mix, backward=backward)
    ]
    ratios = []
    for mix in MIXES:
        lengths = lengths_of(mix)
        ratios.append(
            f"{mix}: {sum(lengths)} tokens, {len(set(lengths))} lengths; filled: padded "
            f"{fill_ratio(lengths, one_by_one(lengths)):.2f}, rows in order "
            f"{fill_ratio(lengths, next_fit(lengths)):.2f}, best fit "
            f"{fill_ratio(lengths, best_fit(lengths, ROWS)):.2f}; pairs of places in rows in order "
            f"for a pair of a clip's tokens: {pairs_of(lengths):.1f}."
        )
    models = [row for mix in MIXES for row in timed_models(mix)]
    table = ["mix", "pass", "attention", "ms (fastest of 7)", "time / melastic"]
    whole = [
        "| mix | training step | real tokens per second | time per token / melastic |",
        "|---|---|---|---|",
    ]
    whole += ["| " + " | ".join(row) + " |" for row in models]
    note = "\n".join(
        [
            f"Attention alone, {HEADS} heads of {DIM}, float32. " + " ".join(ratios),
            "",
            f"Whole models: `elasticast-base` with {BLOCKS} blocks, forward and backward, on up to",
            f"{CLIPS} clips of each mix. Long clips cost more attention than equal ones of as many",
            "tokens; 0.85 beside equal lengths says that a token of theirs takes 0.85 of the time.",
            "",
            *whole,
        ]
    )
    write("packing", "Clips of different lengths", table, rows, note)


if __name__ == "__main__":
    main()
