"""The one model: spectrograms to logits. A paper is a combination of its parts."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melastic.config import ClassTokenPooling, ModelConfig
from melastic.encoders.build import build_encoder
from melastic.encoders.mamba import Mamba
from melastic.errors import InputError, about
from melastic.frontend.audio import PathOrWaveform, samples_of
from melastic.frontend.normalize import spectrogram_of
from melastic.head import Head, build_head
from melastic.inputs import Hops, Spectrograms, checked, one_hop_each, stacked
from melastic.patches.batch import Hidden, Layout, TokenBatch, keep_tokens, runs_of
from melastic.patches.embed import PatchEmbed
from melastic.patches.grid import FreqTime, Size, freq_time
from melastic.patches.position import Placement, PositionTable, placement
from melastic.patches.view import View
from melastic.pooling import (
    MeanPool,
    TokenSemanticPool,
    build_pool,
    embedding_of,
    with_class_tokens,
)


class Prediction(NamedTuple):
    """A class and how likely the model holds it."""

    label: str
    score: float
    """In [0, 1]: softmax over classes, or a sigmoid for each class of a multi-label model."""


class Classifier(nn.Module):
    """Patches, positions, encoder, pooling and head.

    A clip's logits are the same alone, in any batch and in any order.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build a model with random weights, drawn from torch's global generator."""
        super().__init__()
        dim, fed = config.encoder.dim, config.encoder.embed_dim
        self.config = config
        self.patch_embed = PatchEmbed(config.patches, fed, config.frontend.num_mels)
        table = config.positions
        self.positions = None if table is None else PositionTable(table, fed)
        added = config.pooling.added
        self.class_tokens = nn.Parameter(torch.empty(added, dim)) if added else None
        positioned = isinstance(config.pooling, ClassTokenPooling) and config.pooling.positioned
        self.class_positions = nn.Parameter(torch.empty(added, dim)) if positioned else None
        self.encoder = build_encoder(config.encoder)
        self.pool = build_pool(config.pooling, dim)
        self.head = build_head(config.head_inputs, len(config.labels), config.head_norm_eps)
        self._initialise()

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class, in the order of the logits."""
        return self.config.labels

    @property
    def num_parameters(self) -> int:
        """Numbers that the model has: weights and biases, frozen ones too."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        spectrograms: Spectrograms,
        patch: Size | None = None,
        hop_ms: Hops = None,
        kept: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, "clips classes"]:
        """Logits of each clip.

        Args:
            spectrograms: normalised log-mels, ``freq time`` each; lengths may differ in a list.
            patch: patch size (mel bins, frames); None: the model's own.
            hop_ms: frame shift of the spectrograms (ms), one for all or one for each clip; None:
                the model's own.
            kept: for each clip, which of its patches are used; None: all.

        Raises:
            InputError: if a spectrogram does not fit the model or is not finite.
        """
        return self.head(self._pooled(spectrograms, patch, hop_ms, kept))

    def embed(
        self,
        spectrograms: Spectrograms,
        patch: Size | None = None,
        hop_ms: Hops = None,
        kept: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, "clips dim"]:
        """The vector that stands for each clip; arguments as for a call of the model."""
        vectors = self._pooled(spectrograms, patch, hop_ms, kept)
        return embedding_of(vectors, self.config.pooling)

    def frames(
        self, spectrograms: Spectrograms, patch: Size | None = None, hop_ms: Hops = None
    ) -> list[Float[Tensor, "steps classes"]]:
        """Logits of each clip step by step in time.

        A step is as many frames as a patch, times two for each merge of the encoder; the last one
        reaches beyond the clip. By the official rules ("stretch", "tile") the steps share the clip,
        or what it is repeated to, evenly.

        Args:
            spectrograms: normalised log-mels, as for a call of the model.
            patch: patch size (mel bins, frames); None: the model's own.
            hop_ms: frame shift of the spectrograms (ms); None: the model's own.

        Raises:
            InputError: if the model does not fold clips, or a clip has no single line of time.

        Source: HTS-AT (arXiv:2202.00874), the token-semantic module.
        """
        pool = self.pool
        if self.config.patches.fold is None or not isinstance(pool, MeanPool | TokenSemanticPool):
            raise InputError(
                "classes over time need folded clips and a window encoder, this model has "
                f"{type(self.config.encoder).__name__}; use a model such as htsat-tiny"
            )
        encoded, order = self._encoded(spectrograms, patch, hop_ms, None)
        found = pool.frames(*encoded)
        return [self.head(found[order.index(i)]) for i in range(len(order))]

    def _encoded(
        self,
        spectrograms: Spectrograms,
        patch: Size | None,
        hop_ms: Hops,
        kept: Sequence[Int[Tensor, " _"]] | None,
    ) -> tuple[TokenBatch, list[int]]:
        """Tokens behind the encoder, and which clip each stretch of them is."""
        clips = checked(spectrograms, self.config.frontend.num_mels, self.patch_embed.bias.dtype)
        size = self.config.patches.patch if patch is None else freq_time(patch)
        hops_ms = one_hop_each(hop_ms, len(clips), self.config.frontend.hop_ms)
        batch, order = self.tokens(clips, size, hops_ms, kept)
        layout = batch.layout
        values = self.encoder(batch.values, layout)
        for _ in range(self.config.encoder.merges):
            layout = layout.halved()
        return TokenBatch(values, layout), order

    def _pooled(
        self,
        spectrograms: Spectrograms,
        patch: Size | None,
        hop_ms: Hops,
        kept: Sequence[Int[Tensor, " _"]] | None,
    ) -> Float[Tensor, "clips _"]:
        """What the head reads for each clip."""
        encoded, order = self._encoded(spectrograms, patch, hop_ms, kept)
        vectors = self.pool(*encoded)
        if order == list(range(len(order))):
            return vectors
        back = torch.tensor(order, device=vectors.device).argsort()
        return vectors[back]

    def tokens(
        self,
        clips: Sequence[Float[Tensor, "freq _"]],
        patch: FreqTime,
        hops_ms: Sequence[float],
        kept: Sequence[Int[Tensor, " _"]] | None = None,
        hidden: Hidden | None = None,
    ) -> tuple[TokenBatch, list[int]]:
        """A ragged batch with positions and class tokens, and which clip each stretch of it is.

        Clips are put in order of their number of tokens: neighbours of equal length are fastest.

        Args:
            clips: normalised log-mels.
            patch: patch size.
            hops_ms: frame shift of each clip (ms).
            kept: for each clip, which of its patches are used; None: all.
            hidden: patches whose vector is replaced, their position is not; None: none.

        Raises:
            InputError: if a clip holds no such patch, or ``kept`` names other patches.
        """
        pairs = zip(clips, hops_ms, strict=True)
        places = [self.placement(clip.shape[-1], patch, hop) for clip, hop in pairs]
        order = sorted(range(len(clips)), key=lambda i: (places[i].tokens, places[i]))
        equal, rest = runs_of([places[i] for i in order]), iter(order)
        groups = [(place, list(islice(rest, count))) for count, place in equal]
        stacks = [stacked([clips[i] for i in run], place.frames) for place, run in groups]
        values = self.patch_embed(stacks, patch)
        if hidden is not None:
            values = [hidden.put(v, run) for v, (_, run) in zip(values, groups, strict=True)]
        if self.positions is not None:
            values = [
                tokens + self.positions(place).flatten(0, 1)
                for (place, _), tokens in zip(groups, values, strict=True)
            ]
        grids = (places[i].grid for i in order)
        layout = Layout(
            tuple(places[i].tokens for i in order),
            tuple(grid for grid in grids if grid is not None),
        )
        batch = TokenBatch(torch.cat([group.flatten(0, 1) for group in values]), layout)
        if kept is not None:
            batch, order = keep_tokens(batch, order, kept)
        return self._with_class_tokens(batch), order

    def placement(self, frames: int, patch: FreqTime, hop_ms: float) -> Placement:
        """Where the patches of a clip lie.

        Args:
            frames: of the clip.
            patch: patch size.
            hop_ms: frame shift of the clip (ms).
        """
        config = self.config
        return placement(
            config.positions,
            config.patches,
            config.patches.grid(FreqTime(config.frontend.num_mels, frames), patch),
            hop_ms=hop_ms,
            own_hop_ms=config.frontend.hop_ms,
        )

    @torch.no_grad()
    def classify(
        self,
        path_or_waveform: PathOrWaveform,
        *,
        top: int = 5,
        patch: Size | None = None,
        hop_ms: float | None = None,
        view: View | None = None,
        gmacs: float | None = None,
        budget_ms: float | None = None,
    ) -> list[Prediction]:
        """The likeliest classes of one clip, best first.

        A budget chooses the view: the most accurate of the model's measured curve that is within.

        Args:
            path_or_waveform: an audio file, or samples (tensor, array) at the model's sample rate.
            top: how many classes.
            patch: patch size (mel bins, frames); None: the model's own.
            hop_ms: frame shift to compute (ms); None: the model's own.
            view: these two and the other dials, in their place; None: the model's own.
            gmacs: most multiply-adds for the clip (10^9); None: no such budget.
            budget_ms: most time of the model on this machine (ms); None: no such budget.

        Raises:
            InputError: if the clip cannot be read, does not fit the model or is beyond the budget.
        """
        from melastic.evaluation.seen import classify_through

        budgeted = gmacs is not None or budget_ms is not None
        if (patch is not None or hop_ms is not None) + (view is not None) + budgeted > 1:
            raise InputError("patch and hop_ms, a view or a budget: got two, leave one out")
        if budgeted:
            from melastic.evaluation.budget import Budget

            budget = Budget(self, gmacs=gmacs, budget_ms=budget_ms)
            return budget.classify(path_or_waveform, top=top)[0]
        seen = view or View(patch=patch, hop_ms=hop_ms)
        return classify_through(self, path_or_waveform, seen, top=top)

    def likeliest(self, logits: Float[Tensor, " classes"], top: int) -> list[Prediction]:
        """The likeliest classes of one clip, best first."""
        if top < 1:
            raise InputError(f"top must be at least 1, got {top}; try 5")
        scores = self.scores(logits[None])[0]
        best = scores.topk(min(top, len(scores)))
        return [
            Prediction(self.labels[i], score)
            for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def spectrogram(
        self,
        path_or_waveform: PathOrWaveform,
        *,
        hop_ms: float | None = None,
    ) -> Float[Tensor, "freq time"]:
        """Normalised log-mels of one clip, as this model expects them.

        Args:
            path_or_waveform: an audio file, or samples (tensor, array) at the model's sample rate.
            hop_ms: frame shift (ms); None: the model's own.
        """
        bias, frontend = self.patch_embed.bias, self.config.frontend
        waveform, named = samples_of(path_or_waveform, frontend.sample_rate)
        with about(named):
            return spectrogram_of(waveform.to(bias.device), frontend, hop_ms=hop_ms).to(bias)

    def scores(self, logits: Float[Tensor, "clips classes"]) -> Float[Tensor, "clips classes"]:
        """Logits to scores in [0, 1]."""
        return logits.sigmoid() if self.config.task == "multi-label" else logits.softmax(-1)

    def save(self, folder: str | Path, *, card: str | None = None) -> None:
        """Write weights, configuration and model card to a folder.

        Args:
            folder: where; made if it does not exist.
            card: text of the model card (Markdown); None: a short one from the configuration.
        """
        from melastic.checkpoints.store import save

        save(self, Path(folder), card=card)

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hugging Face Hub as ``owner/name``; returns its address."""
        from melastic.checkpoints.hub import push

        return push(self, name, private=private, token=token)

    def _with_class_tokens(self, batch: TokenBatch) -> TokenBatch:
        """Put the class tokens among those of each clip."""
        if self.class_tokens is None:
            return batch
        tokens: Tensor = self.class_tokens
        if self.class_positions is not None:
            tokens = tokens + self.class_positions
        clips = batch.layout.split(batch.values)
        values = [with_class_tokens(run, tokens, self.config.pooling) for run in clips]
        layout = batch.layout.extended(len(tokens))
        return TokenBatch(layout.join(values), layout)

    def _initialise(self) -> None:
        """Draw linear layers and class tokens as ViT does; biases are zero.

        A state space encoder has drawn its own, and its head is drawn as Audio Mamba draws it.
        """
        for part in self.children():
            for module in () if isinstance(part, Mamba) else part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        if isinstance(self.encoder, Mamba) and isinstance(self.head, Head):
            nn.init.trunc_normal_(self.head.linear.weight, std=0.02)
        for learned in (self.class_tokens, self.class_positions):
            if learned is not None:
                nn.init.trunc_normal_(learned, std=0.02)
