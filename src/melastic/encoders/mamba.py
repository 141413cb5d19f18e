"""Mamba encoder on ragged batches: a state space in place of attention, linear in length.

Source: Mamba (arXiv:2312.00752) for the mixer; Audio Mamba (arXiv:2406.03344) and Vision Mamba
    (arXiv:2401.09417) for both directions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from melastic.config import MambaConfig
from melastic.encoders.norm import AddNorm
from melastic.errors import InputError
from melastic.patches.batch import Layout
from melastic.scan.operands import Operands
from melastic.scan.selective import causal_convolution, scan, scan_from

STEP_RANGE = (1e-3, 1e-1)
"""Step sizes of a new model, log-uniform (Mamba, section 3.6)."""
STEP_FLOOR = 1e-4
"""Smallest step size of a new model."""


Decays = tuple[Float[Tensor, "width state"], ...]
"""``A`` of the direction ahead and, where there is one, of the direction back."""


class Rows(NamedTuple):
    """How the tokens of a batch lie in rows: equal lengths in one each, others in one long row."""

    batch: int
    cu_seqlens: Int[Tensor, " clips_plus_one"] | None

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "Rows":
        """The rows of a layout."""
        if len(layout.runs) == 1:
            return cls(len(layout.lengths), None)
        return cls(1, layout.cu_seqlens(device))


class Carried(NamedTuple):
    """What the tokens of a clip so far leave to those that follow, in one block."""

    inputs: Float[Tensor, "reach width"]
    """Of the convolution."""
    state: Float[Tensor, "width state"]
    """Of the scan."""


class StateSpace(nn.Module):
    """Convolution, step sizes, B and C from the input, and the scan of one direction or both.

    Source: Mamba (arXiv:2312.00752), section 3; the second decay alone is Fo-Bi (arXiv:2406.03344).
    """

    def __init__(self, config: MambaConfig, *, both: bool) -> None:
        """Make one with the published initial values.

        Args:
            config: of the encoder.
            both: whether it also scans from the other end, with decays of its own.
        """
        super().__init__()
        width, state, rank = config.width, config.state, config.step_rank
        self.splits = (rank, state, state)
        self.taps = nn.Parameter(torch.empty(width, config.taps))
        self.taps_bias = nn.Parameter(torch.empty(width))
        self.project = nn.Linear(width, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, width)
        decays = torch.arange(1, state + 1, dtype=torch.float32).log().expand(width, -1)
        self.log_decay = nn.Parameter(decays.clone())
        self.log_decay_back = nn.Parameter(decays.clone()) if both else None
        self.skip = nn.Parameter(torch.ones(width))
        self._initialise(rank, config.taps)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        z: Float[Tensor, "batch length width"],
        cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
        *,
        decays: Decays,
        reverse: bool = False,
    ) -> Float[Tensor, "batch length width"]:
        """Mix each clip along its tokens.

        Args:
            x: input.
            z: gate.
            cu_seqlens: where clips begin and end; None: each row is one.
            decays: of each direction.
            reverse: whether to begin at the end of each clip.
        """
        u = causal_convolution(x, self.taps, self.taps_bias, cu_seqlens, reverse=reverse)
        return scan(self.operands(u, z, cu_seqlens, decays=decays, reverse=reverse))

    def operands(
        self,
        u: Float[Tensor, "batch length width"],
        z: Float[Tensor, "batch length width"],
        cu_seqlens: Int[Tensor, " clips_plus_one"] | None,
        *,
        decays: Decays,
        reverse: bool = False,
    ) -> Operands:
        """What the scan works on.

        Args:
            u: input, after the convolution.
            z: gate.
            cu_seqlens: where clips begin and end; None: each row is one.
            decays: of each direction.
            reverse: whether to begin at the end of each clip.
        """
        step, B, C = self.project(u).split(self.splits, dim=-1)
        return Operands(
            u=u,
            delta=functional.linear(step, self.step.weight),
            A=decays[0],
            B=B,
            C=C,
            D=self.skip,
            z=z,
            delta_bias=self.step.bias,
            A_back=decays[1] if len(decays) > 1 else None,
            cu_seqlens=cu_seqlens,
            delta_softplus=True,
            reverse=reverse,
        )

    def advance(
        self,
        x: Float[Tensor, "1 length width"],
        z: Float[Tensor, "1 length width"],
        carried: "Carried",
        decays: Decays,
    ) -> tuple[Float[Tensor, "1 length width"], "Carried"]:
        """Mix the next tokens of a clip, and what to carry on to those behind them.

        Args:
            x: input.
            z: gate.
            carried: what the tokens before have left.
            decays: of the direction ahead.
        """
        before = len(carried.inputs)
        seen = torch.cat([carried.inputs[None].to(x.dtype), x], dim=1)
        u = causal_convolution(seen, self.taps, self.taps_bias)[:, before:]
        y, state = scan_from(self.operands(u, z, None, decays=decays), carried.state)
        return y, Carried(seen[0, seen.shape[1] - before :], state)

    @torch.no_grad()
    def _initialise(self, rank: int, taps: int) -> None:
        """Draw step sizes from their range; everything else as torch draws such layers."""
        for value in (self.taps, self.taps_bias):
            nn.init.uniform_(value, -(taps**-0.5), taps**-0.5)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(value) for value in STEP_RANGE)
        steps = torch.empty_like(self.step.bias).uniform_(low, high).exp().clamp(min=STEP_FLOOR)
        self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # softplus gives the steps


class Mixer(nn.Module):
    """Gated state spaces between two projections.

    Source: Mamba (arXiv:2312.00752), figure 3; Audio Mamba (arXiv:2406.03344), figure 3: Fo-Fo, one
        direction; Fo-Bi, both over the same input; Bi-Bi, each direction with weights of its own
        and the mean of both.
    """

    def __init__(self, config: MambaConfig) -> None:
        """Make a mixer with the published initial values."""
        super().__init__()
        self.into = nn.Linear(config.dim, 2 * config.width, bias=False)
        self.ahead = StateSpace(config, both=config.variant == "fo-bi")
        self.back = StateSpace(config, both=False) if config.variant == "bi-bi" else None
        self.out = nn.Linear(config.width, config.dim, bias=False)
        with torch.no_grad():
            self.out.weight /= math.sqrt(config.depth)

    def forward(
        self, x: Float[Tensor, "tokens dim"], rows: Rows, decays: Decays
    ) -> Float[Tensor, "tokens dim"]:
        """Let every token know of those of its clip that the directions bring.

        Args:
            x: tokens.
            rows: how they lie.
            decays: of each direction.
        """
        x, z = self.into(x).unflatten(0, (rows.batch, -1)).chunk(2, dim=-1)
        if self.back is None:
            return self.out(self.ahead(x, z, rows.cu_seqlens, decays=decays).flatten(0, 1))
        y = self.ahead(x, z, rows.cu_seqlens, decays=decays[:1])
        back = self.back(x, z, rows.cu_seqlens, decays=decays[1:], reverse=True)
        return self.out(((y + back) / 2).flatten(0, 1))

    def advance(
        self, x: Float[Tensor, "length dim"], carried: Carried, decays: Decays
    ) -> tuple[Float[Tensor, "length dim"], Carried]:
        """The next tokens of a clip, and what to carry on.

        Args:
            x: tokens.
            carried: what those before have left.
            decays: of the direction ahead.
        """
        x, z = self.into(x)[None].chunk(2, dim=-1)
        y, carried = self.ahead.advance(x, z, carried, decays)
        return self.out(y[0]), carried

    def log_decays(self) -> list[Float[Tensor, "width state"]]:
        """The table of each direction."""
        second = self.ahead.log_decay_back if self.back is None else self.back.log_decay
        return [self.ahead.log_decay] if second is None else [self.ahead.log_decay, second]


class Block(nn.Module):
    """Addition, norm and mixer; the stream that is added to stays in float32."""

    def __init__(self, config: MambaConfig) -> None:
        """Make a block with the published initial values."""
        super().__init__()
        self.norm = AddNorm(config.dim, config.norm_eps)
        self.mixer = Mixer(config)

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        more: Float[Tensor, "tokens dim"] | None,
        rows: Rows,
        decays: Decays,
    ) -> tuple[Float[Tensor, "tokens dim"], Float[Tensor, "tokens dim"]]:
        """The stream, and what the mixer makes of its norm.

        Args:
            x: the stream.
            more: what the block before made, which is still to be added; None: it is the first.
            rows: how tokens lie.
            decays: of each direction.
        """
        x, normed = self.norm(x, more)
        return x, self.mixer(normed, rows, decays)


class Mamba(nn.Module):
    """A stack of blocks and a final RMSNorm.

    Source: Audio Mamba (arXiv:2406.03344).
    """

    def __init__(self, config: MambaConfig) -> None:
        """Make a stack with the published initial values."""
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = AddNorm(config.dim, config.norm_eps)

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Tokens to tokens; the state starts anew in each clip."""
        rows, more = Rows.of(layout, x.device), None
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        for block, decays in zip(self.blocks, self.decays(), strict=True):
            x, more = block(x, more, rows, decays)
        normed: Tensor = self.norm(x, more)[1]
        return normed

    @torch.no_grad()
    def advance(
        self, x: Float[Tensor, "length dim"], carried: Sequence[Carried] | None = None
    ) -> tuple[Float[Tensor, "length dim"], list[Carried]]:
        """The next tokens of a clip, and what to carry on: in pieces as all at once.

        Args:
            x: tokens that follow those before.
            carried: what the call before returned; None: the clip begins here.

        Raises:
            InputError: if the encoder also looks ahead, or another one's states are carried on.
        """
        config = self.config
        if config.variant != "fo-fo":
            raise InputError(
                f"a clip is read piece by piece by an encoder that looks back only, this one is "
                f"{config.variant}; use variant='fo-fo'"
            )
        if carried is None:
            inputs = x.new_zeros(config.taps - 1, config.width)
            state = x.new_zeros(config.width, config.state)
            carried = [Carried(inputs, state)] * config.depth
        if len(carried) != config.depth:
            raise InputError(
                f"carried is what advance returned, {config.depth} states, got {len(carried)}; "
                "carry on with the model that returned it"
            )
        more, behind = None, []
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        for block, decays, left in zip(self.blocks, self.decays(), carried, strict=True):
            x, normed = cast(Block, block).norm(x, more)
            more, left = cast(Block, block).mixer.advance(normed, left, decays)
            behind.append(left)
        normed = self.norm(x, more)[1]
        return normed, behind

    def decays(self) -> list[Decays]:
        """``A = -exp(log_decay)`` of each block's directions, all computed at once."""
        tables = [cast(Block, block).mixer.log_decays() for block in self.blocks]
        logs = torch.stack([table for pair in tables for table in pair])
        found = iter((-logs.float().exp()).unbind())
        return [tuple(next(found) for _ in pair) for pair in tables]
