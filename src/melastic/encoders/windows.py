"""Window encoder: attention in small windows of each image, groups with ever fewer tokens.

Source: Swin Transformer (arXiv:2103.14030) as HTS-AT (arXiv:2202.00874) uses it. Stochastic depth
    is left out: a forward pass draws nothing.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from melastic.constants import constant
from melastic.encoders.config import WindowConfig
from melastic.errors import InputError
from melastic.patches.batch import Layout
from melastic.patches.grid import FreqTime


class WindowEncoder(nn.Module):
    """Groups of blocks, four neighbours merged between them, and a final LayerNorm.

    The tokens that leave are fewer than those that enter: their layout is ``layout.halved()``, once
    for each merge.
    """

    def __init__(self, config: WindowConfig) -> None:
        """Make groups with random weights."""
        super().__init__()
        self.config = config
        kinds = zip(config.dims, config.depths, config.num_heads, config.windows, strict=True)
        self.groups = nn.ModuleList(
            Group(Block(config, dim, heads, window, shifted=bool(i % 2)) for i in range(depth))
            for dim, depth, heads, window in kinds
        )
        self.merges = nn.ModuleList(Merge(dim, config.norm_eps) for dim in config.dims[:-1])
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(
        self, x: Float[Tensor, "tokens embed_dim"], layout: Layout
    ) -> Float[Tensor, "_ dim"]:
        """Tokens to fewer tokens.

        Raises:
            InputError: if tokens were left out, so that they fill no images.
        """
        if not layout.grids:
            raise InputError(
                "a window encoder reads all patches of a clip, some were left out; use keep=1"
            )
        for i, group in enumerate(self.groups):
            if i:
                x, layout = self.merges[i - 1](x, layout), layout.halved()
            x = group(x, layout)
        return self.norm(x)


class Group(nn.ModuleList):
    """Blocks on the same grid."""

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Tokens to tokens."""
        for block in self:
            x = block(x, layout)
        return x


class Block(nn.Module):
    """Attention within windows, then an MLP on each token; both added to their input."""

    def __init__(
        self, config: WindowConfig, dim: int, num_heads: int, window: int, *, shifted: bool
    ) -> None:
        """Make a block with random weights."""
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attention = WindowAttention(dim, num_heads, window, shifted=shifted)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Tokens to tokens."""
        x = x + self.attention(self.norm1(x), layout)
        return x + self.mlp(self.norm2(x))


class Merge(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, dim: int, norm_eps: float) -> None:
        """Make a merge with random weights."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "tokens dim"], layout: Layout) -> Float[Tensor, "_ _"]:
        """Tokens to a quarter as many."""
        order = "images (rows p) (columns q) dim -> (images rows columns) (q p dim)"
        merged = [rearrange(image, order, p=2, q=2) for image in _images(x, layout)]
        return self.reduction(self.norm(torch.cat(merged)))


class WindowAttention(nn.Module):
    """Self-attention in windows, with a learned number for each offset between two tokens.

    A side of an image that is no longer than a window is one window, and not shifted. Where windows
    reach beyond the image there is nothing to attend to.
    """

    def __init__(self, dim: int, num_heads: int, window: int, *, shifted: bool) -> None:
        """Make projections and a table of offsets with random values."""
        super().__init__()
        self.num_heads, self.window, self.shifted = num_heads, window, shifted
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.offsets = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.offsets, std=0.02)

    def forward(
        self, x: Float[Tensor, "tokens dim"], layout: Layout
    ) -> Float[Tensor, "tokens dim"]:
        """Let every token look at its window."""
        attended = [self._attend(images) for images in _images(self.qkv(x), layout)]
        return self.out(torch.cat(attended))

    def _attend(self, qkv: Float[Tensor, "images rows columns _"]) -> Float[Tensor, "tokens dim"]:
        """Attention in the windows of images of equal shape."""
        shape = FreqTime(*qkv.shape[1:3])
        cut = Windows.of(shape, self.window, shifted=self.shifted)
        parts = {"rows": cut.count.freq, "columns": cut.count.time, "h": cut.side.freq}
        padded = functional.pad(qkv, (0, 0, 0, cut.beyond.time, 0, cut.beyond.freq))
        padded = torch.roll(padded, [-step for step in cut.shift], dims=(1, 2))
        apart = "b (rows h) (columns w) (qkv head dim) -> qkv b (rows columns head) (h w) dim"
        q, k, v = rearrange(padded, apart, qkv=3, head=self.num_heads, **parts)
        bias = self._bias(cut).to(q.dtype)
        found = functional.scaled_dot_product_attention(q, k, v, bias)
        together = "b (rows columns head) (h w) dim -> b (rows h) (columns w) (head dim)"
        whole = rearrange(found, together, head=self.num_heads, **parts)
        whole = torch.roll(whole, list(cut.shift), dims=(1, 2))
        return whole[:, : shape.freq, : shape.time].flatten(0, 2)

    def _bias(self, cut: "Windows") -> Float[Tensor, "1 _ length length"]:
        """What is added to the scores of each window and head."""
        device = self.offsets.device
        by_offset = self.offsets[cut.offsets.to(device)].permute(2, 0, 1)
        windows = cut.count.freq * cut.count.time
        if cut.mask is None:
            return by_offset.repeat(windows, 1, 1)[None]
        hidden = torch.where(cut.mask.to(device), 0.0, -torch.inf)[:, None]
        return (by_offset + hidden).flatten(0, 1)[None]


class Windows:
    """How an image is cut into windows; equal for all images of a shape."""

    def __init__(self, shape: FreqTime, window: int, *, shifted: bool) -> None:
        """Work out sizes, offsets and which tokens of a window may see each other."""
        self.side = FreqTime(*(min(window, size) for size in shape))
        self.count = FreqTime(*(-(-n // side) for n, side in zip(shape, self.side, strict=True)))
        reach = (count * side for count, side in zip(self.count, self.side, strict=True))
        self.beyond = FreqTime(*(full - size for full, size in zip(reach, shape, strict=True)))
        self.shift = FreqTime(*(window // 2 if shifted and size > window else 0 for size in shape))
        self.offsets = self._offsets(window)
        self.mask = self._mask(shape)

    @staticmethod
    @constant(maxsize=64)
    def of(shape: FreqTime, window: int, *, shifted: bool) -> "Windows":
        """The cut of images of a shape.

        Args:
            shape: rows and columns of an image.
            window: side of a window.
            shifted: whether windows are shifted by half of their side.
        """
        return Windows(shape, window, shifted=shifted)

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return self.side.freq * self.side.time

    def _offsets(self, window: int) -> Int[Tensor, "length length"]:
        """Row of the table for each pair: place of the query less place of the key."""
        rows, columns = (torch.arange(side) for side in self.side)
        place = torch.cartesian_prod(rows, columns).reshape(-1, 2)
        freq, time = (place[:, None] - place[None]).unbind(-1)
        return (freq + window - 1) * (2 * window - 1) + time + window - 1

    def _mask(self, shape: FreqTime) -> Bool[Tensor, "windows length length"] | None:
        """True where a token may look: parts that shifting or padding brought together are apart.

        Tokens beyond the image see themselves, so that no softmax is empty. None: all may.
        """
        if not any(self.shift) and not any(self.beyond):
            return None
        kinds = []
        for size, beyond, shift in zip(shape, self.beyond, self.shift, strict=True):
            place = torch.arange(size + beyond).roll(-shift)
            kinds.append(torch.where(place >= size, 2, (place < shift).long()))
        kind = (3 * kinds[0][:, None] + kinds[1]).float()
        sides = {"h": self.side.freq, "w": self.side.time}
        kind = rearrange(kind, "(rows h) (columns w) -> (rows columns) (h w)", **sides)
        outside = (kind >= 6) | (kind % 3 == 2)
        seen = (kind[:, :, None] == kind[:, None]) & ~outside[:, None]
        return seen | torch.eye(self.length, dtype=torch.bool)


def _images(x: Float[Tensor, "tokens dim"], layout: Layout) -> list[Float[Tensor, "_ _ _ dim"]]:
    """One tensor ``images rows columns dim`` for each run of images of equal shape."""
    sizes = [(count, *shape) for count, shape in layout.images]
    pieces = torch.split(x, [count * rows * columns for count, rows, columns in sizes])
    return [piece.unflatten(0, size) for piece, size in zip(pieces, sizes, strict=True)]
