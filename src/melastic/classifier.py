"""The one model: spectrograms to logits. A paper is a combination of its parts."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melastic.config import ClassTokenPooling, ModelConfig
from melastic.encoders.transformer import Transformer
from melastic.errors import InputError
from melastic.frontend.audio import load_audio
from melastic.frontend.normalize import spectrogram_of
from melastic.patches.batch import NOWHERE, Layout, TokenBatch
from melastic.patches.embed import PatchEmbed, grid_positions
from melastic.patches.grid import FreqTime, Size, freq_time
from melastic.patches.position import PositionTable
from melastic.pooling import build_pool

Spectrograms = Sequence[Float[Tensor, "freq _"]] | Float[Tensor, "clips freq time"]


class Prediction(NamedTuple):
    """A class and how likely the model holds it."""

    label: str
    score: float
    """In [0, 1]: softmax over classes, or a sigmoid for each class of a multi-label model."""


class Head(nn.Module):
    """LayerNorm and a linear layer: vectors to logits."""

    def __init__(self, dim: int, num_classes: int, norm_eps: float) -> None:
        """Make a head with random weights."""
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.linear = nn.Linear(dim, num_classes)

    def forward(self, x: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """Vectors to logits."""
        return self.linear(self.norm(x))


class Classifier(nn.Module):
    """Patches, positions, encoder, pooling and head.

    A clip's logits are the same alone, in any batch and in any order.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build a model with random weights, drawn from torch's global generator."""
        super().__init__()
        dim = config.encoder.dim
        self.config = config
        self.patch_embed = PatchEmbed(config.patches, dim)
        self.positions = PositionTable(config.positions, dim)
        leading = config.pooling.tokens if isinstance(config.pooling, ClassTokenPooling) else 0
        self.class_tokens = nn.Parameter(torch.empty(leading, dim)) if leading else None
        self.encoder = Transformer(config.encoder)
        self.pool = build_pool(config.pooling, dim)
        self.head = Head(dim, len(config.labels), config.head_norm_eps)
        self._initialise()

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class, in the order of the logits."""
        return self.config.labels

    def forward(
        self,
        spectrograms: Spectrograms,
        patch: Size | None = None,
        hop_ms: float | None = None,
        kept: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, "clips classes"]:
        """Logits of each clip.

        Args:
            spectrograms: normalised log-mels, ``freq time`` each; lengths may differ in a list.
            patch: patch size (mel bins, frames); None: the model's own.
            hop_ms: frame shift of the spectrograms (ms); None: the model's own.
            kept: for each clip, which of its patches are used; None: all.

        Raises:
            InputError: if a spectrogram does not fit the model or is not finite.
        """
        return self.head(self.embed(spectrograms, patch, hop_ms, kept))

    def embed(
        self,
        spectrograms: Spectrograms,
        patch: Size | None = None,
        hop_ms: float | None = None,
        kept: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> Float[Tensor, "clips dim"]:
        """The vector that stands for each clip; arguments as for a call of the model."""
        clips = self._checked(spectrograms, patch)
        order = sorted(range(len(clips)), key=lambda i: clips[i].shape[-1])
        chosen = None if kept is None else _in_order(kept, order)
        batch = self.tokens([clips[i] for i in order], hop_ms, chosen)
        vectors = self.pool(self.encoder(batch.values, batch.layout), batch.layout)
        if order == list(range(len(order))):
            return vectors
        back = torch.tensor(order, device=vectors.device).argsort()
        return vectors[back]

    def tokens(
        self,
        clips: Sequence[Float[Tensor, "freq _"]],
        hop_ms: float | None = None,
        kept: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> TokenBatch:
        """A ragged batch with positions and class tokens; clips of equal length are neighbours."""
        groups = [torch.stack(list(run)) for _, run in groupby(clips, key=lambda x: x.shape[-1])]
        grids = [self.patch_embed.grid(FreqTime(*group.shape[1:])).shape for group in groups]
        values = self.patch_embed(groups)
        stride, frontend = self.config.patches.stride, self.config.frontend
        step_ms = stride.time * (frontend.hop_ms if hop_ms is None else hop_ms)
        places, positions, lengths = [], [], []
        for group, grid in zip(groups, grids, strict=True):
            here = self.positions.places(grid, step_mels=stride.freq, step_ms=step_ms)
            places.append(here.repeat(len(group), 1))
            positions.append(grid_positions(grid, values.device).repeat(len(group), 1))
            lengths += [len(here)] * len(group)
        values = values + self.positions(torch.cat(places)).to(values.dtype)
        batch = TokenBatch(values, torch.cat(positions), Layout(tuple(lengths)))
        return self._with_class_tokens(batch if kept is None else _keep(batch, kept))

    @torch.no_grad()
    def classify(
        self,
        path_or_waveform: str | Path | Float[Tensor, " samples"],
        *,
        top: int = 5,
        patch: Size | None = None,
        hop_ms: float | None = None,
    ) -> list[Prediction]:
        """The likeliest classes of one clip, best first.

        Args:
            path_or_waveform: an audio file, or samples at the model's sample rate.
            top: how many classes.
            patch: patch size (mel bins, frames); None: the model's own.
            hop_ms: frame shift to compute (ms); None: the model's own.

        Raises:
            InputError: if the clip cannot be read or does not fit the model.
        """
        if top < 1:
            raise InputError(f"top must be at least 1, got {top}; try 5")
        spectrogram = self.spectrogram(path_or_waveform, hop_ms=hop_ms)
        scores = self.scores(self([spectrogram], patch, hop_ms))[0]
        best = scores.topk(min(top, len(scores)))
        return [
            Prediction(self.labels[i], score)
            for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def spectrogram(
        self,
        path_or_waveform: str | Path | Float[Tensor, " samples"],
        *,
        hop_ms: float | None = None,
    ) -> Float[Tensor, "freq time"]:
        """Normalised log-mels of one clip, as this model expects them.

        Args:
            path_or_waveform: an audio file, or samples at the model's sample rate.
            hop_ms: frame shift (ms); None: the model's own.
        """
        frontend = self.config.frontend
        if isinstance(path_or_waveform, Tensor):
            waveform = path_or_waveform
        else:
            waveform = load_audio(path_or_waveform, sample_rate=frontend.sample_rate)
        if waveform.ndim != 1:
            raise InputError(
                f"a waveform has one axis (samples), got shape {tuple(waveform.shape)}; average "
                "its channels first"
            )
        try:
            return spectrogram_of(waveform.to(self.head.linear.weight), frontend, hop_ms=hop_ms)
        except InputError as error:
            named = path_or_waveform if not isinstance(path_or_waveform, Tensor) else "waveform"
            raise InputError(f"{named}: {error}") from None

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
        """Put the class tokens in front of each clip."""
        if self.class_tokens is None:
            return batch
        leading = len(self.class_tokens)
        values = [
            torch.cat([self.class_tokens.to(clips.dtype).expand(len(clips), -1, -1), clips], dim=1)
            for clips in batch.layout.split(batch.values)
        ]
        positions = [
            torch.cat([clips.new_full((len(clips), leading, 2), NOWHERE), clips], dim=1)
            for clips in batch.layout.split(batch.positions)
        ]
        layout = batch.layout.extended(leading)
        return TokenBatch(layout.join(values), layout.join(positions), layout)

    def _checked(self, spectrograms: Spectrograms, patch: Size | None) -> list[Tensor]:
        """The clips one by one, after everything that could be wrong with them."""
        own = self.config.patches.patch
        if patch is not None and freq_time(patch) != own:
            raise InputError(
                f"this model is fixed to patches of {own.freq} x {own.time}, got "
                f"{freq_time(patch).freq} x {freq_time(patch).time}; leave patch out"
            )
        clips = list(spectrograms)
        if not clips:
            raise InputError("a batch needs at least one spectrogram, got none")
        num_mels = self.config.frontend.num_mels
        for i, clip in enumerate(clips):
            if clip.ndim != 2 or clip.shape[0] != num_mels or clip.shape[1] < 1:
                raise InputError(
                    f"spectrogram {i} must have the shape ({num_mels} mel bins, frames), got "
                    f"{tuple(clip.shape)}; use melastic.log_mel or model.spectrogram"
                )
            if clip.device.type == "cpu" and not torch.isfinite(clip.sum()):
                raise InputError(
                    f"spectrogram {i} must be finite, found NaN or infinity; check the audio"
                )
        return clips

    def _initialise(self) -> None:
        """Draw linear layers and class tokens as ViT does; biases are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.class_tokens is not None:
            nn.init.trunc_normal_(self.class_tokens, std=0.02)


def _in_order(kept: Sequence[Tensor], order: Sequence[int]) -> list[Tensor]:
    """The choices of patches in another order of the clips."""
    if len(kept) != len(order):
        raise InputError(f"kept must name the patches of {len(order)} clips, got {len(kept)}")
    return [kept[i] for i in order]


def _keep(batch: TokenBatch, kept: Sequence[Int[Tensor, " _"]]) -> TokenBatch:
    """Only some tokens of each clip."""
    first, indices = 0, []
    for length, index in zip(batch.layout.lengths, kept, strict=True):
        if not len(index) or not 0 <= int(index.min()) <= int(index.max()) < length:
            raise InputError(f"kept must name some of a clip's {length} patches, from 0 on")
        indices.append(index + first)
        first += length
    chosen = torch.cat(indices).to(batch.values.device)
    layout = Layout(tuple(len(index) for index in kept))
    return TokenBatch(batch.values[chosen], batch.positions[chosen], layout)
