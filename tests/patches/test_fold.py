"""Clips become images of bands, and nothing of them is lost by our rule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.errors import InputError
from melastic.patches.fold import Fold, folded, folded_grid, pieces
from melastic.patches.grid import FreqTime

SIZES = {
    "bins": st.integers(1, 20),
    "frames": st.integers(1, 90),
    "patch": st.builds(FreqTime, st.integers(1, 5), st.integers(1, 5)),
    "fold": st.builds(Fold, frames=st.integers(1, 40), bands=st.just(2), merges=st.integers(0, 2)),
}


@given(**SIZES)
def test_each_cell_of_a_clip_is_in_its_band_and_the_rest_is_the_mean(bins, frames, patch, fold):
    clip = 1 + torch.rand(1, bins, frames)
    grid = folded_grid(FreqTime(bins, frames), patch, fold)
    (image,) = folded(clip, patch, fold)
    rows, width = image.shape[0] // grid.bands, image.shape[1]
    for band in range(grid.bands):
        here = clip[0, :, band * width : (band + 1) * width]
        there = image[band * rows : (band + 1) * rows]
        assert torch.equal(there[:bins, : here.shape[1]], here)
    assert (image > 0).sum() == bins * frames
    assert (image == 0).sum() == image.numel() - bins * frames


@given(**SIZES)
def test_the_grid_is_known_without_the_clip(bins, frames, patch, fold):
    images = folded(torch.randn(3, bins, frames), patch, fold)
    grid = folded_grid(FreqTime(bins, frames), patch, fold)
    assert images.shape == (3 * grid.images, *grid.size)
    assert grid.num_patches == images[0].numel() // (patch.freq * patch.time)
    assert grid.used == -(-frames // patch.time)
    cells = 2**fold.merges
    assert all(count % cells == 0 for count in (grid.shape.freq // grid.bands, grid.shape.time))


@given(frames=st.integers(1, 4000), bins=st.sampled_from([60, 64]))
def test_no_clip_is_too_long_or_too_short_for_our_rule(frames, bins):
    grid = folded_grid(FreqTime(bins, frames), FreqTime(4, 4), Fold())
    assert grid.bands == -(-frames // 256)
    assert grid.size.time >= min(frames, 256)


@pytest.mark.parametrize(("rule", "longest"), [("stretch", 258), ("tile", 128)])
@given(data=st.data())
def test_the_official_rules_give_images_of_one_size(rule, longest, data):
    fold = Fold(frames=64, bands=2, merges=1, rule=rule)
    frames = data.draw(st.integers(1, longest))
    grid = folded_grid(FreqTime(30, frames), FreqTime(4, 4), fold)
    images = folded(torch.randn(2, 30, frames), FreqTime(4, 4), fold)
    assert images.shape == (2 * grid.images, 64, 64)
    assert grid.images == (1 if frames <= 128 else 2 if frames % 4 == 1 else 3)


def test_a_clip_that_fills_all_bands_is_folded_alike_by_every_rule():
    clip, patch = torch.randn(2, 64, 1024), FreqTime(4, 4)
    ours = folded(clip, patch, Fold())
    for rule in ("stretch", "tile"):
        assert torch.equal(folded(clip, patch, Fold(rule=rule)), ours)


def test_the_official_rule_never_reads_the_last_quarter_of_whole_seconds():
    assert pieces(1501, Fold(rule="stretch")) == [range(750), range(375, 1125)]
    assert pieces(1500, Fold(rule="stretch"))[-1].stop == 1497
    assert pieces(1501, Fold()) == [range(1501)]


@pytest.mark.parametrize(
    ("fold", "size", "words"),
    [
        (Fold(rule="tile"), (64, 1025), "at most 1024 frames, got 1025; use the fold rule 'bands'"),
        (Fold(rule="stretch"), (64, 2051), "at most 2050 frames, got 2051"),
        (Fold(rule="stretch"), (65, 100), "at most 64 mel bins, got 65"),
        (Fold(rule="stretch", frames=100), (20, 100), "do not fill bands"),
    ],
)
def test_a_clip_that_an_official_rule_cannot_read_is_refused(fold, size, words):
    with pytest.raises(InputError, match=words):
        folded_grid(FreqTime(*size), FreqTime(4, 4), fold)


@pytest.mark.parametrize("sizes", [{"frames": 0}, {"bands": 0}, {"merges": -1}])
def test_a_fold_without_an_image_is_refused(sizes):
    with pytest.raises(InputError, match="at least"):
        Fold(**sizes)
