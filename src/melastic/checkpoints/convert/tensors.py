"""Official tensors, taken by name: each once, and none left over silently."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from melastic.config import TransformerConfig
from melastic.errors import InputError

WRAPPERS = ("model", "state_dict", "model_state")
"""Keys under which training scripts put the state dict beside other things."""
PREFIXES = ("module.", "sed_model.")
"""What ``nn.DataParallel`` and ``accelerate``, and HTS-AT's Lightning module, put in front of every
name."""


class OfficialState:
    """Tensors of an official file. Each is taken once, by name; nothing is left over silently."""

    def __init__(self, state_dict: Any, origin: str) -> None:
        """Read a state dict, bare or wrapped in what a training script saved.

        Raises:
            InputError: if it is not a mapping from names to tensors.
        """
        self.origin = origin
        self.taken: list[str] = []
        """Names of the tensors that were read."""
        self.dropped: list[str] = []
        """Names of the tensors that the official forward pass does not use."""
        self.absorbed: list[str] = []
        """What the official code does differently, and how the tensors make up for it."""
        self.assumed: dict[str, Any] = {}
        """Facts that neither the file nor the user says, and what they were taken for."""
        self._left, self._prefix = official_tensors(state_dict)

    def __contains__(self, name: str) -> bool:
        """Whether a tensor is still there."""
        return name in self._left

    def take(self, name: str, *shape: int | None) -> Float[Tensor, "..."]:
        """A copy of one tensor as float32.

        Args:
            name: its official name.
            shape: what it must be; None where an axis may have any size.

        Raises:
            InputError: if it is missing, of another shape or not finite.
        """
        official = f"{self.origin} weights: {self._prefix}{name}"
        if name not in self._left:
            raise InputError(f"{official} is missing; check the origin and that the file is whole")
        value = self._left.pop(name)
        self.taken.append(name)
        pairs = zip(value.shape, shape, strict=False)
        if value.ndim != len(shape) or any(want not in (None, got) for got, want in pairs):
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            got = " x ".join(map(str, value.shape)) or "a single number"
            raise InputError(f"{official} must be {wanted}, got {got}; check the origin")
        value = value.detach().to("cpu", torch.float32, copy=True).contiguous()
        if not torch.isfinite(value.sum()):
            raise InputError(f"{official} is not finite; the weights are damaged, fetch them again")
        return value

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor that is still there; None if it is not."""
        return tuple(self._left[name].shape) if name in self._left else None

    def take_linear(
        self, name: str, ours: str, rows: int | None, *columns: int | None
    ) -> dict[str, Tensor]:
        """Weight and bias of a linear layer, or of a LayerNorm (no columns), under our name."""
        weight = self.take(f"{name}.weight", rows, *columns)
        return {f"{ours}.weight": weight, f"{ours}.bias": self.take(f"{name}.bias", len(weight))}

    def drop(self, *prefixes: str, ending: tuple[str, ...] = ()) -> None:
        """Leave out tensors that the official forward pass does not use, or that follow from sizes.

        Args:
            ending: how the names of some end.
            *prefixes: how the names of others begin.
        """
        found = [n for n in self._left if n.startswith(prefixes) or n.endswith(ending)]
        self._left = {name: value for name, value in self._left.items() if name not in found}
        self.dropped += found

    def absorb(self, quirk: str) -> None:
        """Note a peculiarity of the official code that the tensors now make up for."""
        self.absorbed.append(quirk)

    def assume(self, fact: str, value: Any) -> None:
        """Note what was taken for a fact that nobody says."""
        self.assumed[fact] = value

    def count(self, block: str) -> int:
        """How many blocks there are; ``block`` is the start of their names, with ``{}``."""
        depth = 0
        while any(name.startswith(block.format(depth)) for name in self._left):
            depth += 1
        return depth

    def finish(self) -> None:
        """Refuse tensors that nobody took.

        Raises:
            InputError: naming the first of them.
        """
        if self._left:
            name = next(iter(self._left))
            raise InputError(
                f"{self.origin} weights: {self._prefix}{name} has no place in this kind of model "
                f"({len(self._left)} unknown in all); check the origin"
            )


def official_tensors(state_dict: Any) -> tuple[dict[str, Tensor], str]:
    """Tensors by name without what wraps them, and the prefix that was taken off every name.

    Raises:
        InputError: if it is not a mapping from names to tensors.
    """
    tensors = _unwrapped(state_dict)
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"a state dict maps names to tensors, {name!r} holds a "
                f"{type(value).__name__}; pass only the model's state dict"
            )
    prefix = ""
    for more in PREFIXES:
        if tensors and all(name.startswith(prefix + more) for name in tensors):
            prefix += more
    return {name.removeprefix(prefix): value for name, value in tensors.items()}, prefix


def _unwrapped(state_dict: Any) -> Mapping[str, Any]:
    """The state dict itself, out of what may be around it."""
    if not isinstance(state_dict, Mapping):
        raise InputError(
            f"weights come as a state dict (names to tensors), got a {type(state_dict).__name__}; "
            "pass torch.load(path, weights_only=True), or model.state_dict()"
        )
    for key in WRAPPERS:
        if key in state_dict and isinstance(state_dict[key], Mapping):
            return state_dict[key]
    return state_dict


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderNames:
    """How a file calls the parts of a pre-norm transformer."""

    block: str
    """Start of the names in one block, with ``{}`` for its index."""
    norm1: str
    qkv: tuple[str, ...]
    """One fused layer, or several whose rows are queries, keys and values in this order."""
    out: str
    norm2: str
    fc1: str
    fc2: str
    norm: str
    """The LayerNorm after the last block."""


def timm_names(prefix: str = "") -> EncoderNames:
    """Names of timm's ViT and DeiT, which most official audio models keep."""
    return EncoderNames(
        block=f"{prefix}blocks.{{}}.",
        norm1="norm1",
        qkv=("attn.qkv",),
        out="attn.proj",
        norm2="norm2",
        fc1="mlp.fc1",
        fc2="mlp.fc2",
        norm=f"{prefix}norm",
    )


def take_encoder(
    state: OfficialState, names: EncoderNames, dim: int, num_heads: int | None, norm_eps: float
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Take a whole transformer; its depth and the width of its MLPs are read off.

    Args:
        state: where its tensors are.
        names: how they are called there.
        dim: width of a token.
        num_heads: attention heads; None: one for each 64 channels.
        norm_eps: what the official LayerNorms add to the variance.

    Returns:
        The encoder's configuration, and its tensors under the names of our classifier.
    """
    depth = max(1, state.count(names.block))
    ours: dict[str, Tensor] = {}
    for i in range(depth):
        there, here = names.block.format(i), f"encoder.blocks.{i}."
        ours |= state.take_linear(there + names.norm1, here + "norm1", dim)
        qkv = [state.take_linear(there + part, "part", None, dim) for part in names.qkv]
        for kind in ("weight", "bias"):
            fused = torch.cat([part[f"part.{kind}"] for part in qkv])
            ours[f"{here}attention.qkv.{kind}"] = fused
        ours |= state.take_linear(there + names.out, here + "attention.out", dim, dim)
        ours |= state.take_linear(there + names.norm2, here + "norm2", dim)
        ours |= state.take_linear(there + names.fc1, here + "mlp.0", None, dim)
        hidden = len(ours[f"{here}mlp.0.weight"])
        ours |= state.take_linear(there + names.fc2, here + "mlp.2", dim, hidden)
    ours |= state.take_linear(names.norm, "encoder.norm", dim)
    config = TransformerConfig(
        dim=dim,
        depth=depth,
        num_heads=read_heads(dim, num_heads),
        mlp_ratio=read_ratio(hidden, dim),
        norm_eps=norm_eps,
    )
    return config, ours


def read_heads(dim: int, num_heads: int | None) -> int:
    """Attention heads: as said, or one for each 64 channels.

    Raises:
        InputError: if nothing was said and 64 does not divide the width.
    """
    if num_heads is None and dim % 64:
        raise InputError(
            f"num_heads cannot be read off a width of {dim}, which is no multiple of 64; "
            "give num_heads"
        )
    return dim // 64 if num_heads is None else num_heads


def read_ratio(hidden: int, dim: int) -> float:
    """The quotient, nudged up where rounding would make the hidden layer one unit narrower."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
