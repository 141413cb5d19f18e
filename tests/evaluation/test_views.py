import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melastic.data.features import Features
from melastic.data.loader import ClipDataset
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs, kept_tokens, tokens_of
from melastic.evaluation.evaluate import evaluate
from melastic.evaluation.seen import (
    frames_through,
    gmacs_through,
    kept_patches,
    readable_samples,
    spectrogram_through,
)
from melastic.frontend.audio import load_audio
from melastic.patches.dials import Pooling, pooling_of, size_of, size_text
from melastic.patches.grid import FreqTime
from melastic.patches.view import View
from tests.evaluation.tiny import MELS, tiny


@given(
    st.sampled_from([None, 8, (16, 3), (32, 7)]),
    st.sampled_from([None, 5.0, 12.5, 20.0]),
    st.sampled_from(["none", "mean2", "max3"]),
    st.sampled_from([None, 0.05, 0.3]),
    st.sampled_from([1.0, 0.9, 0.5, 0.1]),
    st.integers(min_value=2400, max_value=12_000),
    st.sampled_from([None, 40]),
)
def test_frames_and_costs_of_a_view_are_those_of_its_spectrogram(
    patch, hop_ms, pool, seconds, keep, samples, fixed
):
    view = View(patch=patch, hop_ms=hop_ms, pooling=pooling_of(pool), seconds=seconds, keep=keep)
    config = tiny(fixed_frames=fixed).config
    spectrogram = spectrogram_through(torch.randn(samples), config.frontend, view)
    assert frames_through(samples, config.frontend, view) == spectrogram.shape[1]
    patch = config.patches.patch if view.patch is None else FreqTime(*_pair(view.patch))
    oracle = gmacs(config, FreqTime(*spectrogram.shape), patch=patch, keep=view.keep)
    assert gmacs_through(samples, config, view) == oracle


WRONG = {
    "Pooling(kind='sum', factor=2)": "unknown pooling kind 'sum'",
    "Pooling(factor=1.5)": "1,000,000 whole frames, got 1.5",
    "Pooling(factor='2')": "whole frames, got '2'",
    "View(pooling='max2')": "is a melastic.Pooling, got 'max2'; try",
    "View(seconds='a')": "positive number of seconds, got 'a'",
    "View(keep=None)": "in (0, 1], got None",
    "View(hop_ms=-1)": "positive number of milliseconds, got -1",
}
"""What a user may write, and what the error says."""


def test_a_view_that_means_nothing_is_one_line_that_says_what_works():
    code = "from melastic import InputError, Pooling, View\n" + "".join(
        f"try: {text}\nexcept InputError as error: print(error)\n" for text in WRONG
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for line, said in zip(done.stdout.splitlines(), WRONG.values(), strict=True):
        assert said in line


def test_classifying_names_the_clip_that_holds_no_patch():
    model = tiny(remainder="crop")
    with pytest.raises(InputError, match=r"^waveform: .*holds no whole patch"):
        model.classify(torch.zeros(400))


def _pair(patch):
    return (patch, patch) if isinstance(patch, int) else patch


def test_a_spectrogram_of_a_view_is_the_one_that_evaluation_sees(tones):
    clips = read_manifest(tones)[:3]
    model = tiny(fixed_frames=30)
    frontend = model.config.frontend
    view = View(hop_ms=5.0, pooling=Pooling(kind="max", factor=2), seconds=0.2)
    dataset = ClipDataset(Features(clips, frontend, view=view), model.labels, frontend)
    for index, clip in enumerate(clips):
        found = spectrogram_through(load_audio(clip.path), frontend, view)
        assert torch.equal(found, dataset.clip(0, index)[0])
    assert readable_samples(clips, 16_000) == {
        i: len(load_audio(clip.path)) for i, clip in enumerate(clips)
    }


@given(st.integers(1, 300), st.sampled_from([1.0, 0.9, 0.5, 0.01]), st.integers(0, 50))
def test_kept_patches_are_some_of_all_without_repetition_and_in_order(frames, keep, index):
    config, view = tiny().config, View(keep=keep)
    kept = kept_patches(config, frames, view, index)
    patches = config.patches.grid(FreqTime(MELS, frames)).num_patches
    assert len(kept) == kept_tokens(patches, keep)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert kept[0] >= 0
    assert kept[-1] < patches
    assert torch.equal(kept, kept_patches(config, frames, view, index))


def test_every_patch_is_kept_equally_often():
    config, counts = tiny().config, torch.zeros(20)
    for index in range(2000):
        counts[kept_patches(config, 40, View(keep=0.5), index)] += 1
    assert counts.sum() == 2000 * 10
    assert (counts / 2000 - 0.5).abs().max() < 0.06


def test_keeping_everything_changes_nothing(tones):
    clips, model = read_manifest(tones)[:6], tiny()
    plain = evaluate(model, clips, workers=0)
    kept = evaluate(model, clips, view=View(keep=1.0), workers=0)
    assert torch.equal(plain.outputs.logits, kept.outputs.logits)
    assert plain.gmacs_per_clip == kept.gmacs_per_clip


def test_a_share_of_the_tokens_gives_the_logits_of_these_tokens_at_their_cost(tones):
    clips, model, view = read_manifest(tones)[:6], tiny(), View(keep=0.5)
    found = evaluate(model, clips, view=view, workers=0)
    sizes = [FreqTime(MELS, frames) for frames in found.outputs.frames]
    for index, (clip, size) in enumerate(zip(clips, sizes, strict=True)):
        kept = kept_patches(model.config, size.time, view, index)
        alone = model([model.spectrogram(clip.path)], kept=[kept])[0]
        torch.testing.assert_close(found.outputs.logits[index], alone, atol=1e-5, rtol=1e-5)
    costs = [gmacs(model.config, size, keep=0.5) for size in sizes]
    tokens = [tokens_of(model.config, size, keep=0.5) for size in sizes]
    assert found.gmacs_per_clip == pytest.approx(sum(costs) / 6)
    assert found.tokens_per_clip == pytest.approx(sum(tokens) / 6)


def test_evaluation_through_another_batch_size_gives_the_same(tones):
    clips, model = read_manifest(tones)[:7], tiny()
    view = View(patch=(32, 9), hop_ms=5.0, pooling=Pooling(factor=2), keep=0.6)
    one = evaluate(model, clips, view=view, workers=0, batch_tokens=1)
    all_at_once = evaluate(model, clips, view=view, workers=0)
    torch.testing.assert_close(one.outputs.logits, all_at_once.outputs.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text", ["16", "128x4", "1x16"])
def test_patch_sizes_are_read_as_they_are_written(text):
    assert size_text(size_of(text)) == text


@pytest.mark.parametrize("text", ["none", "mean2", "max13"])
def test_poolings_are_read_as_they_are_written(text):
    assert str(pooling_of(text)) == text


@pytest.mark.parametrize("text", ["", "0", "x", "16x", "-4", "1.5", "4x0", "4,4", "2x2x2"])
def test_a_patch_size_that_is_none_is_one_clear_line(text):
    with pytest.raises(InputError, match="try 16 or 128x4"):
        size_of(text)


@pytest.mark.parametrize("text", ["", "sum2", "mean", "max0", "mean-1", "2", "mean2.5"])
def test_a_pooling_that_is_none_is_one_clear_line(text):
    with pytest.raises(InputError, match="try mean2"):
        pooling_of(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch": 0},
        {"hop_ms": -10.0},
        {"hop_ms": float("nan")},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"keep": 1.1},
        {"keep": float("nan")},
    ],
)
def test_a_view_that_no_clip_could_be_seen_through_says_what_would_work(wrong):
    with pytest.raises(InputError, match=r"; try|positive"):
        View(**wrong)
