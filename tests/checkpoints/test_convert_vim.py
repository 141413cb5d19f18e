"""Weights of Vision Mamba become the start of an Audio Mamba by its rule."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.testing import assert_close

import melastic
from melastic.checkpoints.convert.official_aum import aum_logits
from tests.models import VARIANTS
from tests.oracles.aum import LEARNED, vim_state
from tests.oracles.fill import spectrogram


def as_aum(state, place, model, grid, stride):
    """The state dict that the official code makes of it, with the head of the model."""
    rows, last = state["pos_embed"][0], state["pos_embed"].shape[1] - 1
    at = {"first": [0], "middle": [last // 2], "last": [last], "both": [0, last], "none": []}[place]
    cells = torch.stack([row for i, row in enumerate(rows) if i not in at])
    side = round(len(cells) ** 0.5)
    image = cells.T.reshape(1, -1, side, side)
    image = interpolate(image, grid, mode="bilinear", antialias=True)
    positions = torch.cat([rows[at], image[0].flatten(1).T])
    unused = ("pos_embed", "rope.freqs_cos", "rope.freqs_sin")
    return {name: value for name, value in state.items() if name not in unused} | {
        "pos_embed.pos_embed": positions[None],
        "patch_embed.proj.weight": state["patch_embed.proj.weight"].mean(1, keepdim=True),
        "head.weight": model.head.linear.weight.detach(),
        "head.bias": model.head.linear.bias.detach(),
    }


@pytest.mark.parametrize("size", [(32, 200), (64, 64), (128, 32), (100, 128)])
@pytest.mark.parametrize("place", LEARNED)
def test_a_vim_becomes_an_aum_by_the_published_rule(size, place):
    state = vim_state(place=place)
    said = {"class_token": place} if place in ("first", "last") else {}
    model = melastic.from_official(state, origin="vim", input_size=size, num_classes=7, **said)
    grid = tuple(n // 16 for n in size)
    assert model.config.positions.grid == grid
    assert model.head.linear.weight.std().item() == pytest.approx(0.02, rel=0.3)
    x = spectrogram(size[1], size[0], batch=2).transpose(1, 2)
    official = aum_logits(as_aum(state, place, model, grid, 16), x, grid, (16, 16), (16, 16), place)
    with torch.no_grad():
        assert_close(model(x), official, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_a_vim_is_read(variant):
    state = vim_state(variant, side=3)
    model = melastic.from_official(
        state, origin="vim", input_size=(48, 60), stride=(16, 10), labels=["a", "b"]
    )
    assert model.config.encoder.variant == variant
    assert model.labels == ("a", "b")
    x = spectrogram(60, 48, batch=1).transpose(1, 2)
    tensors = as_aum(state, "middle", model, (3, 5), 16)
    with torch.no_grad():
        official = aum_logits(tensors, x, (3, 5), (16, 16), (16, 10), "middle")
        assert_close(model(x), official, atol=1e-5, rtol=1e-5)


def test_the_published_vim_becomes_the_published_small_aum():
    state = vim_state(side=14, dim=384, depth=24)
    model = melastic.from_official(state, origin="vim", num_classes=527)
    assert state["pos_embed"].shape == (1, 197, 384)
    assert torch.equal(model.class_positions, state["pos_embed"][0, 98:99])
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_539_215
    assert model.config.positions.grid == (8, 64)
    assert model.config.frontend.fixed_frames is None


@settings(max_examples=30)
@given(side=st.integers(2, 7), freq=st.integers(1, 12), time=st.integers(1, 12))
def test_image_positions_are_interpolated_whole(side, freq, time):
    from melastic.checkpoints.convert.vim import fit_positions

    assume(time > 1 or freq <= side)  # torch gives one column the same value all over
    table = torch.randn(side, side, 3)
    image = interpolate(
        table.permute(2, 0, 1)[None].contiguous(), (freq, time), mode="bilinear", antialias=True
    )
    fitted = fit_positions(table, melastic.FreqTime(freq, time))
    assert_close(fitted, image[0].permute(1, 2, 0), atol=1e-5, rtol=1e-5)


def test_a_vim_of_one_colour_is_accepted():
    state = vim_state(colours=1)
    model = melastic.from_official(state, origin="vim", input_size=(64, 64), num_classes=2)
    assert torch.equal(model.patch_embed.kernel, state["patch_embed.proj.weight"][:, 0])
    cells = torch.cat([state["pos_embed"][0, :8], state["pos_embed"][0, 9:]])
    assert torch.equal(model.positions.table.flatten(0, 1), cells)
