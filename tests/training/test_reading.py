"""What a run reads: each file once, whatever its phases are, within the memory that it is given."""

import pickle
from dataclasses import replace

import pytest
import torch

from melastic.architecture import frontend_config
from melastic.data import features as reading
from melastic.data.features import Features, Samples
from melastic.data.manifest import read_manifest
from melastic.devices import one_thread, reading_threads
from melastic.errors import InputError
from melastic.patches.view import View
from melastic.training.coarse_to_fine import phase_config, train
from melastic.training.phases import phases_in
from melastic.training.reading import Library, workers_of
from tests.training.test_resume import settings

PHASES = ("3-phase", "3-phase-mean", "3-phase-patch", "gradual", "2-phase-max")


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded, in order."""
    found = []
    whole = reading.load_audio

    def listening(path, **options):
        found.append(path)
        return whole(path, **options)

    monkeypatch.setattr(reading, "load_audio", listening)
    return found


def in_phases(manifest, preset, **data):
    config = settings(manifest)
    optim = replace(config.optim, epochs=len(phases_in(preset)))
    data = replace(config.data, **data)
    return replace(config, phases=phases_in(preset), optim=optim, data=data)


def frontend_of(manifest):
    return frontend_config(settings(manifest).model.architecture)


@pytest.mark.parametrize("preset", PHASES)
def test_a_run_in_phases_decodes_each_file_once(tones, tmp_path, decoded, preset):
    train(in_phases(tones, preset), tmp_path)
    assert sorted(decoded) == sorted(clip.path for clip in read_manifest(tones))


@pytest.mark.parametrize("cache_mb", [0, 1, 2, 1000])
@pytest.mark.parametrize("preset", PHASES)
def test_what_phases_have_in_common_is_what_each_would_read(tones, preset, cache_mb):
    config = in_phases(tones, preset, cache_mb=cache_mb)
    clips = read_manifest(tones)
    library = Library(config.phases, quiet=True)
    for number in range(len(config.phases)):
        own = phase_config(config, number, [1] * number)
        library.turn_to(number)
        shared, failed = library.read(own, clips, "clips")
        alone, _ = Library(quiet=True).read(own, clips, "clips")
        assert not failed
        assert shared.view == alone.view
        for index in range(len(clips)):
            with one_thread():  # as those that are kept were made, so that rounding is the same
                assert torch.equal(shared[index], alone[index])
            assert shared.frames(index) == alone.frames(index)


@pytest.mark.parametrize("cache_mb", [1, 2, 3, 1000])
def test_what_is_kept_takes_no_more_memory_than_is_given(tones, cache_mb):
    config = in_phases(tones, "3-phase", cache_mb=cache_mb)
    clips = read_manifest(tones)
    library = Library(config.phases, quiet=True)
    for number in range(3):
        library.turn_to(number)
        features, _ = library.read(phase_config(config, number), clips, "clips")
        caches = features.cache, features.samples.cache
        kept = [sum(x.nbytes for x in cache.kept.values()) for cache in caches]
        room = sum(cache.room for cache in caches)
        assert sum(kept) + room <= cache_mb * 1_000_000
        assert min(cache.room for cache in caches) >= 0
        if cache_mb == 1000:
            assert sum(kept) + room == cache_mb * 1_000_000
    assert kept[0], "spectrograms of the last phase"
    assert not features.samples.cache.kept, "samples that no phase needs any more"


@pytest.mark.parametrize("cores", [1, 5])
@pytest.mark.parametrize("kept_first", [0, 0.2, 0.5, 0.8])
def test_samples_make_room_for_spectrograms(tones, monkeypatch, cores, kept_first):
    monkeypatch.setattr(reading, "usable_cores", lambda: cores)
    clips = read_manifest(tones)
    alone = Features(clips, frontend_of(tones))
    spectrograms_mb = sum(alone[index].nbytes for index in range(len(clips))) / 1e6
    samples = Samples(
        clips, alone.frontend.sample_rate, cache_mb=(1 - kept_first) * spectrograms_mb + 1e-5
    )
    features = Features(
        clips, alone.frontend, cache_mb=kept_first * spectrograms_mb, samples=samples, borrow=True
    )
    features.fill()
    assert len(features.cache.kept) == len(clips)
    assert features.complete
    assert not samples.cache.kept
    assert samples.cache.room == 0


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_clips_are_read_alike_on_any_number_of_cores(tones, tmp_path, monkeypatch, cores):
    monkeypatch.setattr(reading, "usable_cores", lambda: cores)
    monkeypatch.setattr(reading, "BLOCK", 4)
    clips = read_manifest(tones)
    for index in (7, 3, 20):
        broken = tmp_path / f"{index}.wav"
        broken.write_bytes(b"nothing")
        clips[index] = replace(clips[index], path=broken)
    frontend = frontend_of(tones)
    features = Features(clips, frontend, cache_mb=100)
    told = []
    failed = features.fill(max_unreadable=3, on_clip=lambda done, of: told.append((done, of)))
    assert list(failed) == [3, 7, 20]
    assert told == [(done, len(clips)) for done in range(1, len(clips) + 1)]
    assert sorted(features.cache.kept) == [i for i in range(len(clips)) if i not in failed]
    with one_thread():
        for index, kept in features.cache.kept.items():
            assert torch.equal(kept, Features([clips[index]], frontend)[0])
    with pytest.raises(InputError, match=r"3\.wav.*3 unreadable, 2 allowed"):
        Features(clips, frontend, cache_mb=100).fill(max_unreadable=2)


def test_features_go_to_other_processes(tones):
    clips = read_manifest(tones)
    features = Features(clips, frontend_of(tones), view=View(hop_ms=20.0), cache_mb=100)
    features.fill()
    received = pickle.loads(pickle.dumps(features))
    assert received.complete
    assert torch.equal(received[3], features[3])


def test_a_model_on_a_cpu_shares_its_cores_with_readers_only_where_clips_are_not_kept(
    tones, monkeypatch
):
    config = settings(tones)
    config = replace(config, run=replace(config.run, cpu=False))
    clips, frontend = read_manifest(tones), frontend_config(config.model.architecture)
    read_again, kept = Features(clips, frontend), Features(clips, frontend, cache_mb=100)
    kept.fill()
    monkeypatch.setattr("melastic.training.reading.best_device", lambda: torch.device("cpu"))
    assert (workers_of(config, read_again), workers_of(config, kept)) == (reading_threads(), 0)
    monkeypatch.setattr("melastic.training.reading.best_device", lambda: torch.device("cuda"))
    assert workers_of(config, kept) == reading_threads()
    on_cpu = replace(config, run=replace(config.run, cpu=True))
    assert workers_of(on_cpu, kept) == 0
    chosen = replace(config, data=replace(config.data, workers=3))
    assert workers_of(chosen, kept) == 3
