import dataclasses
import itertools
import os
import threading
import time

import pytest
import torch

from melastic.config import FrontendConfig
from melastic.data.features import Features
from melastic.data.loader import AHEAD, ClipDataset, load_batches
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from melastic.frontend.augment import Augmentation
from melastic.frontend.fbank import log_mel
from melastic.patches.dials import Pooling
from melastic.patches.view import View

FRONTEND = FrontendConfig(sample_rate=16_000, num_mels=32, hop_ms=10.0, mean=-4.0, std=4.0)
AUGMENT = Augmentation(mixup=0.5, warp_time=0.2, roll=0.5, noise_db=20, time_masks=1)
KEYS = [(0, [3, 1]), (0, [5]), (1, [3, 0, 2]), (1, [])]
LABELS = ("high", "low", "middle")


def features(manifest, **settings):
    return Features(read_manifest(manifest), FRONTEND, **settings)


def dataset(manifest, augmentation=AUGMENT, seed=0, **settings):
    return ClipDataset(
        features(manifest, **settings), LABELS, FRONTEND, augmentation=augmentation, seed=seed
    )


def batches(data, workers=0):
    return list(load_batches(data, KEYS, workers=workers))


def same(one, other):
    return all(
        torch.equal(a.frames, b.frames)
        and torch.equal(a.targets, b.targets)
        and (a.lengths, a.indices) == (b.lengths, b.indices)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_batches_do_not_depend_on_workers_or_on_what_is_kept(tones, cache_mb):
    expected = batches(dataset(tones))
    kept = dataset(tones, cache_mb=cache_mb)
    kept.features.fill()
    assert same(batches(kept), expected)
    assert same(batches(kept, workers=2), expected)
    assert same(batches(kept), expected), "a second time"
    assert not same(batches(dataset(tones, seed=1)), expected)


def test_loading_leaves_the_global_random_state_alone(tones):
    before = torch.get_rng_state()
    batches(dataset(tones), workers=1)
    batches(dataset(tones))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_prepared_by_threads_which_end_with_the_last_or_when_no_more_are_taken(
    tones, monkeypatch, workers
):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a forked process may hang"))
    before = threading.active_count()
    assert len(batches(dataset(tones), workers)) == len(KEYS)
    assert threading.active_count() == before
    some = load_batches(dataset(tones), KEYS * 100, workers=workers)
    next(some)
    assert before < threading.active_count() <= before + workers
    some.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_only_so_many_batches_wait_for_the_model(tones, monkeypatch, workers):
    data, made = dataset(tones), []
    make = ClipDataset.__getitem__
    monkeypatch.setattr(
        ClipDataset, "__getitem__", lambda self, key: (made.append(key), make(self, key))[1]
    )
    ahead = load_batches(data, KEYS * 10, workers=workers)
    for taken in itertools.count(1):
        if next(ahead, None) is None:
            break
        time.sleep(0.01)
        assert len(made) <= taken + AHEAD * workers
    assert sorted(made) == sorted(KEYS * 10)


def test_a_batch_holds_its_clips_one_behind_the_other(tones):
    data = dataset(tones, augmentation=None)
    batch = data[0, [3, 1]]
    for spectrogram, target, index in zip(batch.spectrograms, batch.targets, (3, 1), strict=True):
        alone, one = data.clip(0, index)
        assert torch.equal(spectrogram, alone)
        assert torch.equal(target, one)
        raw = data.features[index]
        torch.testing.assert_close(spectrogram, (raw - FRONTEND.mean) / (2 * FRONTEND.std))


@pytest.mark.parametrize(
    "view",
    [View(), View(hop_ms=20), View(pooling=Pooling(kind="max", factor=3)), View(hop_ms=7.5)],
)
def test_frames_are_told_from_the_header_of_a_file(tones, view):
    data = features(tones, view=view)
    for index in range(0, 30, 7):
        assert data.frames(index) == data[index].shape[1]


def test_a_longest_stretch_is_drawn_in_training_and_is_the_beginning_otherwise(tones):
    view = View(seconds=0.1)
    plain, drawn = dataset(tones, None, view=view), dataset(tones, Augmentation(), view=view)
    whole = dataset(tones, None)
    beginning, _ = whole.clip(0, 9)
    assert torch.equal(plain.clip(0, 9)[0], beginning[:, :10])
    starts = set()
    for epoch in range(20):
        stretch, _ = drawn.clip(epoch, 9)
        places = [
            first
            for first in range(beginning.shape[1] - 9)
            if torch.equal(beginning[:, first : first + 10], stretch)
        ]
        assert len(places) == 1
        starts |= set(places)
    assert len(starts) > 5


def test_targets_of_mixed_clips_have_the_weights_of_the_mix(tones):
    data = dataset(tones, Augmentation(mixup=1.0))
    for index in range(9):
        _, target = data.clip(0, index)
        assert target.sum().item() == pytest.approx(1)
    assert any(0.01 < data.clip(0, i)[1].max() < 0.99 for i in range(9))


def test_a_window_of_a_file_is_read_where_the_manifest_says(tones):
    manifest = tones.parent / "windows.csv"
    manifest.write_text("file,label,start_s,end_s\nlow_9.wav,low,0.1,0.3\n")
    one = features(manifest)
    assert one.frames(0) == one[0].shape[1] == 18
    from melastic.frontend.audio import load_audio

    waveform = load_audio(tones.parent / "low_9.wav", sample_rate=16_000)
    expected = log_mel(waveform[1600:4800], num_mels=32)
    torch.testing.assert_close(one[0], expected)


def test_statistics_read_at_most_so_many_clips(tones):
    read = []
    data = features(tones)
    data.statistics(most=20, on_clip=lambda done, total: read.append(total))
    assert len(read) == read[0] <= 20
    whole = torch.cat([data[i] for i in range(30)], dim=1)
    everything = data.statistics()
    assert everything.mean == pytest.approx(whole.mean().item(), abs=1e-4)
    assert everything.std == pytest.approx(whole.std().item(), rel=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_cannot_be_read_is_named_and_the_rest_of_its_batch_is_there(tones, workers):
    manifest = tones.parent / "truncated.csv"
    (tones.parent / "truncated.wav").write_bytes(b"RIFF")
    manifest.write_text("file,label\nlow_0.wav,low\ntruncated.wav,low\nhigh_0.wav,high\n")
    data = ClipDataset(features(manifest), LABELS, FRONTEND)
    (batch,) = load_batches(data, [(0, [0, 1, 2])], workers=workers)
    assert batch.indices == (0, 2)
    assert len(batch.unreadable) == 1
    assert "truncated.wav" in batch.unreadable[0]
    for cache_mb in (0, 100):
        assert list(features(manifest, cache_mb=cache_mb).fill(max_unreadable=1)) == [1]
    with pytest.raises(InputError, match=r"truncated\.wav.*max_unreadable"):
        features(manifest).fill()


def test_a_label_that_the_model_does_not_know_is_an_error_that_names_the_file(tones):
    with pytest.raises(InputError, match=r"low_0\.wav: has the label 'low'"):
        ClipDataset(features(tones), ("high", "middle"), FRONTEND)


def test_the_official_order_masks_with_zero_before_normalising(tones):
    config = Augmentation(freq_masks=2, time_masks=2)
    official = dataclasses.replace(config, official_order=True)
    mean_masked, _ = dataset(tones, config).clip(0, 4)
    zero_masked, _ = dataset(tones, official).clip(0, 4)
    hidden = mean_masked == 0
    assert hidden.any()
    filled = (0 - FRONTEND.mean) / (2 * FRONTEND.std)
    torch.testing.assert_close(zero_masked[hidden], torch.full_like(zero_masked[hidden], filled))
    torch.testing.assert_close(zero_masked[~hidden], mean_masked[~hidden])


def test_a_clip_that_ends_beyond_its_file_is_as_long_as_what_is_there(tones):
    clip = read_manifest(tones)[0]
    beyond = dataclasses.replace(clip, end_s=1000.0)
    assert Features([beyond], FRONTEND).frames(0) == Features([clip], FRONTEND).frames(0)


@pytest.mark.parametrize("most", [1, 16, 29, 30, 31])
def test_statistics_are_of_as_many_clips_as_asked_for(tones, most):
    heard = []
    clips = read_manifest(tones)
    Features(clips, FRONTEND).statistics(most=most, on_clip=lambda done, of: heard.append(of))
    assert len(heard) == heard[-1] == min(most, len(clips))
