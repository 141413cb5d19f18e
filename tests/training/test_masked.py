"""Masked pretraining: each clip by itself, whatever it is batched with and whoever encodes it."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate
from torch.testing import assert_close

from melastic.checkpoints.transfer import transfer
from melastic.classifier import Classifier
from melastic.errors import InputError
from melastic.patches.grid import FreqTime
from melastic.randomness import generator
from melastic.training.masked import MaskedModel
from melastic.training.masked_losses import drawn_error, told_apart
from melastic.training.masks import Masking
from melastic.training.units import unit_size, units_of
from tests.models import MELS, mamba, small, windows

CLOSE = {"atol": 2e-5, "rtol": 1e-5}
MAKERS = {
    "class": lambda: small("class"),
    "distillation": lambda: small("class+distillation"),
    "mean": small,
    "attention": lambda: small("attention", positions="factorised"),
    "frames": lambda: small("mean", ((32, 3), (32, 3))),
    "mamba-middle": lambda: mamba(class_token="middle"),
    "mamba-both": lambda: mamba(class_token="both"),
    "mamba-last": lambda: mamba(class_token="last"),
    "windows": windows,
    "windows-mean": lambda: windows("mean", patch=(2, 3), depths=(1, 2)),
}


def hidden_of(model, clips, share=0.6):
    """A mask for each clip."""
    masking, units = Masking(share=share), [units_of(model.config, c.shape[1]) for c in clips]
    return [masking.draw(u.shape, u.size, 10.0, generator(0, i)) for i, u in enumerate(units)]


def clips_of(*lengths):
    return [torch.randn(MELS, length) for length in lengths]


@pytest.mark.parametrize("name", MAKERS)
def test_a_clip_has_the_same_losses_alone_and_in_any_batch(name):
    model = MaskedModel(MAKERS[name](), Masking())
    clips = clips_of(60, 17, 60, 3, 131, 58)
    hidden = hidden_of(model.classifier, clips)
    together = model(clips, hidden)
    for i, clip in enumerate(clips):
        alone = model([clip], [hidden[i]])
        for ours, own in zip(together, alone, strict=True):
            assert_close(ours[i : i + 1], own, **CLOSE)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_hidden_is_not_seen_but_asked(name):
    model = MaskedModel(MAKERS[name](), Masking())
    classifier, clip = model.classifier, torch.randn(MELS, 60)
    units = units_of(classifier.config, 60)
    hidden, height, length = hidden_of(classifier, [clip]), *units.size
    changed, target = clip.clone(), []
    for place in hidden[0].tolist():
        row, column = divmod(place, units.shape.time)
        rows = slice(row * height, (row + 1) * height)
        columns = slice(column * length, (column + 1) * length)
        whole = torch.zeros(height, length)
        held = clip[rows, columns]
        whole[: held.shape[0], : held.shape[1]] = held
        target.append(whole.flatten())
        changed[rows, columns] = 0
    seen = []
    model.draw.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    first, second = model([clip], hidden), model([changed], hidden)
    assert_close(seen[0], seen[1])
    target = torch.stack(target)[None]
    assert_close(first.generative, drawn_error(model.draw(seen[0]), target))
    assert_close(second.generative, drawn_error(model.draw(seen[0]), target * 0))


def test_what_is_not_hidden_is_seen():
    model, clip = MaskedModel(small(), Masking()), torch.randn(MELS, 60)
    hidden = [torch.tensor([1, 6])]
    changed = clip.clone()
    changed[:16, :16] += 1
    assert (model([clip], hidden).generative - model([changed], hidden).generative).abs() > 1e-6


def test_the_losses_are_those_of_a_loop():
    predicted, target = torch.randn(2, 7, 5), torch.randn(2, 7, 5)
    for over in ("patches", "predictions"):
        found = told_apart(predicted, target, over)
        for clip in range(2):
            losses, right = [], 0
            scores = [[(t @ p).item() for p in predicted[clip]] for t in target[clip]]
            scores = torch.tensor(scores)
            for j in range(7):
                rivals = scores[:, j] if over == "patches" else scores[j]
                losses.append(rivals.logsumexp(0) - scores[j, j])
                shares = scores if over == "patches" else scores.softmax(1)
                right += int(shares[:, j].argmax() == j)
            assert_close(found.loss[clip], torch.stack(losses).mean())
            assert found.accuracy[clip] == pytest.approx(right / 7)
    assert_close(drawn_error(predicted, target), ((predicted - target) ** 2).mean((1, 2)))


def test_a_clip_with_one_hidden_patch_has_nothing_to_tell_apart():
    model = MaskedModel(small(), Masking())
    found = model([torch.randn(MELS, 60)], [torch.tensor([2])])
    assert found.discriminative.item() == 0
    assert found.accuracy.item() == 1
    assert found.loss.item() == pytest.approx(10 * found.generative.item())


def test_targets_carry_no_gradient():
    model, clip = MaskedModel(small(), Masking()), torch.randn(MELS, 60, requires_grad=True)
    hidden = [torch.arange(8)]
    model([clip], hidden).loss.sum().backward()
    assert clip.grad is None or not clip.grad.any(), "all is hidden, so nothing was seen"
    assert model.mask_token.grad.any()


def test_neither_pooling_nor_head_has_a_part():
    model = MaskedModel(small("attention"), Masking())
    model([torch.randn(MELS, 60)], [torch.tensor([1, 2])]).loss.sum().backward()
    unused = {n.split(".")[1] for n, p in model.named_parameters() if p.grad is None}
    assert unused == {"pool", "head"}


def with_patch(*size, seed=0):
    torch.manual_seed(seed)
    model = MaskedModel(small("mean", (size, size)), Masking())
    for head in (model.tell, model.draw):
        torch.nn.init.normal_(head[2].bias)
    return model


def pictures(values, old, new):
    """Patches of one size resized to another as pictures."""
    maps = values.reshape(1, -1, *old)
    resized = interpolate(maps, new, mode="bilinear", antialias=new < old)
    return resized.reshape(len(values), -1)


def test_a_phase_of_equal_patches_takes_over_mask_token_and_heads_as_they_are():
    before, after = with_patch(16, 8), with_patch(16, 8, seed=1)
    encoder = after.classifier.state_dict()
    after.carry(before.state_dict(), FreqTime(16, 8))
    taken = {k: v for k, v in before.state_dict().items() if not k.startswith("classifier.")}
    for name, value in taken.items():
        assert torch.equal(after.state_dict()[name], value)
    assert all(torch.equal(v, after.classifier.state_dict()[k]) for k, v in encoder.items())


def test_enlarged_patches_are_told_apart_and_drawn_as_the_patches_were():
    old, new = (16, 8), (16, 16)
    before, after = with_patch(*old), with_patch(*new, seed=1)
    after.carry(before.state_dict(), FreqTime(*old))
    tokens, patches = torch.randn(7, 24), torch.randn(9, 16 * 8)
    scores = before.tell(tokens) @ patches.T
    assert_close(after.tell(tokens) @ pictures(patches, old, new).T, scores, atol=1e-4, rtol=1e-4)
    assert_close(after.draw(tokens), pictures(before.draw(tokens), old, new), **CLOSE)


def test_patches_of_half_the_length_are_told_apart_as_if_each_frame_stood_twice():
    old, new = (16, 16), (16, 8)
    before, after = with_patch(*old), with_patch(*new, seed=1)
    after.carry(before.state_dict(), FreqTime(*old))
    tokens, patches = torch.randn(7, 24), torch.randn(9, *new)
    scores = before.tell(tokens) @ patches.repeat_interleave(2, -1).flatten(1).T
    assert_close(after.tell(tokens) @ patches.flatten(1).T, scores, atol=1e-4, rtol=1e-4)
    assert_close(after.draw(tokens), pictures(before.draw(tokens), old, new), **CLOSE)


def test_cells_of_merged_patches_are_resized_as_a_whole():
    before, after = (MaskedModel(windows(patch=size), Masking()) for size in ((2, 3), (2, 6)))
    old, new = (unit_size(model.classifier.config) for model in (before, after))
    assert old.time > 3
    after.carry(before.state_dict(), old)
    tokens = torch.randn(3, before.classifier.config.encoder.dim)
    assert_close(after.draw(tokens), pictures(before.draw(tokens), old, new), **CLOSE)


def stretching():
    config = windows().config
    fold = replace(config.patches.fold, rule="stretch", frames=64)
    return Classifier(replace(config, patches=replace(config.patches, fold=fold)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small("mean", ((16, 16), (10, 10))), "patches that do not overlap"),
        (stretching, "use the fold rule 'bands'"),
    ],
)
def test_what_could_be_read_off_something_else_is_refused(make, words):
    with pytest.raises(InputError, match=words) as caught:
        MaskedModel(make(), Masking())
    assert "\n" not in str(caught.value)


def test_a_cell_of_a_window_encoder_is_the_token_that_its_patches_become():
    model, frames = windows(patch=(4, 4)), 100
    units = units_of(model.config, frames)
    assert (units.size, units.side, units.shape) == (FreqTime(16, 16), 4, FreqTime(2, 7))
    for place in (0, 5, 8, 13):
        row, column = divmod(place, 7)
        clip = torch.zeros(MELS, frames)
        clip[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        embed = model.patch_embed([clip[None]])[0][0]
        inside = (embed - embed.mode(0).values).abs().sum(1) > 1e-6
        chosen = units.patches(torch.tensor([place]))
        filled = chosen[inside[chosen]]
        assert set(inside.nonzero()[:, 0].tolist()) == set(filled.tolist())
        assert len(filled) in (16, 4 * -(-(frames - 96) // 4))
        token = units.tokens(torch.tensor([place])).item()
        columns, bands = model.config.patches.grid(FreqTime(MELS, frames)).shape.time // 4, 2
        assert token == (column // columns * bands + row) * columns + column % columns


@pytest.mark.parametrize("name", ["class", "mamba-middle", "windows"])
def test_losses_are_computed_in_full_precision_whatever_the_encoder_has(name):
    model = MaskedModel(MAKERS[name](), Masking())
    clips = clips_of(60, 17, 60)
    hidden = hidden_of(model.classifier, clips)
    whole = model(clips, hidden)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(clips, hidden)
    assert {part.dtype for part in low} == {torch.float32}
    assert_close(low.loss, whole.loss, atol=0.1, rtol=0.1)
    low.loss.sum().backward()
    assert model.mask_token.grad.isfinite().all()


def test_pretraining_goes_on_from_a_trained_classifier():
    headless = Classifier(replace(small().config, labels=()))
    trained = small()
    assert transfer(trained, headless) == []
    own, given = headless.state_dict(), trained.state_dict()
    assert all(torch.equal(value, given[key]) for key, value in own.items())
