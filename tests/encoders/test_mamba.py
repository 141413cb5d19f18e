"""The state space encoder: against its definition, its published start, and piece by piece."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import melastic
from melastic.errors import InputError
from melastic.native import scan as native
from melastic.patches.batch import Layout
from tests.models import VARIANTS, mamba


def one_way(part, x, z, log_decay, flipped):
    """A state space as the papers write it, channel by channel and step by step."""
    taps, width = part.taps, part.taps.shape[1]
    padded = functional.pad(x.T, (width - 1, 0))
    u = functional.silu(
        functional.conv1d(padded[None], taps[:, None], part.taps_bias, groups=len(taps))[0].T
    )
    rank, state = part.step.in_features, part.log_decay.shape[1]
    step, B, C = part.project(u).split([rank, state, state], -1)
    delta = functional.softplus(part.step(step))
    if flipped is not None:
        u, delta, B, C, z = (v.flip(0) for v in (u, delta, B, C, z))
    h, outputs = torch.zeros(len(taps), state), []
    for t in range(len(u)):
        h = torch.exp(-delta[t, :, None] * log_decay.exp()) * h
        h = h + delta[t, :, None] * B[t] * u[t, :, None]
        outputs.append((h * C[t]).sum(-1) + part.skip * u[t])
    y = torch.stack(outputs) * functional.silu(z)
    return y if flipped is None else y.flip(0)


def definition(encoder, x):
    """The encoder of Audio Mamba, one clip."""
    residual = x
    for block in encoder.blocks:
        mixer = block.mixer
        root = (residual.square().mean(-1, keepdim=True) + encoder.config.norm_eps).sqrt()
        u, z = mixer.into(residual / root * block.norm.weight).chunk(2, -1)
        y = one_way(mixer.ahead, u, z, mixer.ahead.log_decay, None)
        if encoder.config.variant == "fo-bi":
            y = y + one_way(mixer.ahead, u, z, mixer.ahead.log_decay_back, "scan")
        if encoder.config.variant == "bi-bi":
            back = one_way(mixer.back, u.flip(0), z.flip(0), mixer.back.log_decay, None)
            y = (y + back.flip(0)) / 2
        residual = residual + mixer.out(y)
    root = (residual.square().mean(-1, keepdim=True) + encoder.config.norm_eps).sqrt()
    return residual / root * encoder.norm.weight


def stirred(variant):
    """A small encoder whose directions and norms all differ."""
    encoder = mamba(variant).encoder
    with torch.no_grad():
        for value in encoder.parameters():
            value += 0.1 * torch.randn_like(value)
    return encoder


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_encoder_is_what_the_paper_says(variant):
    encoder, lengths = stirred(variant), (9, 9, 1, 14)
    x = torch.randn(sum(lengths), 24)
    together = encoder(x, Layout(lengths))
    alone = torch.cat([definition(encoder, clip) for clip in x.split(lengths)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "variant", "parameters"),
    [("aum-base", "fo-bi", 92_107_535), ("aum-small", "bi-bi", 25_539_215)],
)
def test_sizes_are_those_of_the_paper(name, variant, parameters):
    with torch.device("meta"):
        model = melastic.create_model(name, variant=variant, num_classes=527)
    assert sum(value.numel() for value in model.parameters()) == parameters


def test_a_new_model_starts_as_published():
    model = melastic.create_model("aum-nano", num_classes=200)
    mixer = model.encoder.blocks[0].mixer
    decays = torch.arange(1, 17).log().expand(256, 16)
    torch.testing.assert_close(mixer.ahead.log_decay, decays)
    torch.testing.assert_close(mixer.ahead.log_decay_back, decays)
    assert torch.equal(mixer.ahead.skip, torch.ones(256))
    steps = functional.softplus(mixer.ahead.step.bias)
    assert 0.9e-3 < steps.min() < 2e-3
    assert 5e-2 < steps.max() < 1.1e-1
    assert mixer.ahead.step.weight.abs().max() <= 8**-0.5
    assert mixer.out.weight.abs().max() <= 1 / math.sqrt(256 * 12)
    assert model.head.linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.class_tokens.std().item() == pytest.approx(0.02, rel=0.5)
    assert not model.head.linear.bias.any()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=20)
def test_piece_by_piece_equals_all_at_once(pieces):
    torch.manual_seed(0)
    encoder = stirred("fo-fo")
    x, carried, outputs = torch.randn(sum(pieces), 24), None, []
    for piece in x.split(pieces):
        y, carried = encoder.advance(piece, carried)
        outputs.append(y)
    whole = encoder(x, Layout((len(x),))).detach()
    torch.testing.assert_close(torch.cat(outputs), whole, atol=2e-6, rtol=1e-5)


def test_piece_by_piece_needs_no_kernels(monkeypatch):
    from melastic.scan import selective

    encoder, x = stirred("fo-fo"), torch.randn(9, 24)
    monkeypatch.setattr(selective, "serves", lambda *_: False)
    first, carried = encoder.advance(x[:4])
    second, _ = encoder.advance(x[4:], carried)
    whole = encoder(x, Layout((9,))).detach()
    torch.testing.assert_close(torch.cat([first, second]), whole, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", ["fo-bi", "bi-bi"])
def test_an_encoder_that_looks_ahead_cannot_go_piece_by_piece(variant):
    with pytest.raises(InputError, match="looks back only, this one is"):
        mamba(variant).encoder.advance(torch.randn(3, 24))


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_stays_close(variant):
    model, clips = mamba(variant).eval(), [torch.randn(32, 60), torch.randn(32, 41)]
    with torch.no_grad():
        exact = model(clips)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(clips)
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("tokens", [3, 1])
def test_class_tokens_number_as_their_place_says(tokens):
    from melastic.config import ClassTokenPooling

    with pytest.raises(InputError, match="whose place is 'both' number 2"):
        ClassTokenPooling(tokens=tokens, place="both")


def test_a_stream_takes_the_kernel_that_is_asked_for(monkeypatch):
    encoder, x = stirred("fo-fo"), torch.randn(7, 24)
    expected, _ = encoder.advance(x)
    monkeypatch.setattr(native, "forward", lambda *_, **__: pytest.fail("the compiled kernel ran"))
    with melastic.scan_kernel("loop"):
        torch.testing.assert_close(encoder.advance(x)[0], expected, atol=1e-5, rtol=1e-4)
