import csv
import dataclasses
import itertools
import json
import math

import pytest

import melastic
import melastic.data.features as features_module
import melastic.evaluation.sweep as sweep_module
from melastic.data.manifest import read_manifest
from melastic.errors import InputError
from melastic.evaluation.cost import gmacs, tokens_of
from melastic.evaluation.curve import worth_their_cost
from melastic.evaluation.evaluate import evaluate
from melastic.evaluation.seen import frames_through, readable_samples
from melastic.evaluation.sweep import Dials, sweep
from melastic.evaluation.sweep_rows import ABOUT, COLUMNS, TABLE, read_rows
from melastic.patches.dials import Pooling
from melastic.patches.grid import FreqTime, freq_time
from tests.evaluation.tiny import MELS, tiny

DIALS = Dials(
    patch=((32, 5),),
    hop_ms=(10.0, 20.0),
    pooling=(Pooling(), Pooling(kind="max", factor=2)),
    seconds=(0.15, None),
    keep=(1.0, 0.5),
)


@pytest.fixture(scope="module")
def clips(tones):
    return read_manifest(tones)[::5]


def timeless(rows):
    return [dataclasses.replace(row, clips_per_second=0.0) for row in rows]


def test_a_share_of_tokens_that_windows_cannot_leave_out_is_refused_before_anything_is_written(
    clips, tmp_path
):
    model = melastic.create_model("htsat-nano", labels=("low", "middle", "high"))
    with pytest.raises(InputError, match="use keep=1"):
        sweep(model, clips, Dials(keep=(1.0, 0.5)), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_row_is_the_evaluation_of_its_view_at_the_cost_of_its_geometry(clips, tmp_path):
    model = tiny()
    rows = sweep(model, clips, DIALS, tmp_path)
    assert [row.view for row in rows] == DIALS.views(model.config)
    assert len(rows) == 16
    frontend, samples = model.config.frontend, readable_samples(clips, 16_000)
    for row in rows[::4] + rows[-1:]:
        alone = evaluate(model, clips, view=row.view, workers=0)
        assert row.accuracy == pytest.approx(alone.metrics.accuracy)
        assert row.mAP == pytest.approx(alone.metrics.mAP, abs=1e-5)
        assert row.clips == len(clips)
        assert row.clips_per_second > 0
    for row in rows:
        patch = freq_time(row.view.patch)
        sizes = [FreqTime(MELS, frames_through(n, frontend, row.view)) for n in samples.values()]
        for cost, found in ((gmacs, row.gmacs_per_clip), (tokens_of, row.tokens_per_clip)):
            costs = [cost(model.config, size, patch=patch, keep=row.keep) for size in sizes]
            assert found == pytest.approx(sum(costs) / len(costs))


def test_the_table_has_the_published_columns_and_reads_back(clips, tmp_path):
    rows = sweep(tiny(), clips, Dials(keep=(1.0, 0.5)), tmp_path)
    lines = list(csv.reader((tmp_path / TABLE).read_text().splitlines()))
    assert ",".join(lines[0]) == (
        "patch_freq,patch_time,hop_ms,pool,seconds,clips,accuracy,mAP,tokens_per_clip,"
        "gmacs_per_clip,clips_per_second,keep"
    )
    assert lines[1][:6] == ["16", "4", "10", "none", "", "6"]
    assert read_rows(tmp_path / TABLE) == rows


def test_files_are_decoded_once_and_spectrograms_computed_once_for_each_resolution(
    clips, tmp_path, monkeypatch
):
    decoded, computed = [], []
    load, compute = features_module.load_audio, features_module.raw_spectrogram_of

    def counted_load(path, **how):
        decoded.append(path)
        return load(path, **how)

    def counted_compute(*what, **how):
        computed.append(how["hop_ms"])
        return compute(*what, **how)

    monkeypatch.setattr(features_module, "load_audio", counted_load)
    monkeypatch.setattr(features_module, "raw_spectrogram_of", counted_compute)
    sweep(tiny(), clips, DIALS, tmp_path)
    assert sorted(decoded) == sorted(clip.path for clip in clips)
    assert len(computed) == 2 * 2 * len(clips)


def test_a_sweep_without_room_in_memory_gives_the_same(clips, tmp_path):
    model, dials = tiny(), Dials(hop_ms=(10.0, 20.0))
    rows = sweep(model, clips, dials, tmp_path / "room")
    assert timeless(sweep(model, clips, dials, tmp_path / "none", memory_mb=0)) == timeless(rows)


def test_an_unreadable_clip_is_left_out_where_that_is_allowed(clips, tmp_path):
    broken = dataclasses.replace(clips[0], path=tmp_path / "missing.wav")
    with pytest.raises(InputError, match=r"missing\.wav.*0 allowed"):
        sweep(tiny(), [broken, *clips], Dials(), tmp_path / "strict")
    (row,) = sweep(tiny(), [broken, *clips], Dials(), tmp_path / "lenient", max_unreadable=1)
    assert row.clips == len(clips)


def test_an_interrupted_sweep_continues_to_the_same_table(clips, tmp_path):
    dials = Dials(patch=(8, 16), hop_ms=(10.0, 20.0))

    def stop(row, done, total):
        assert len(read_rows(tmp_path / "cut" / TABLE)) == done
        if done == 2:
            raise KeyboardInterrupt

    model = tiny()
    whole = sweep(model, clips, dials, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep(model, clips, dials, tmp_path / "cut", on_row=stop)
    before = read_rows(tmp_path / "cut" / TABLE)
    measured = []
    rows = sweep(model, clips, dials, tmp_path / "cut", on_row=lambda *told: measured.append(told))
    assert len(measured) == 2
    assert timeless(rows) == timeless(whole)
    assert set(before) <= set(rows)
    assert read_rows(tmp_path / "cut" / TABLE) == rows
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {TABLE, ABOUT}


def test_rows_of_an_earlier_grid_are_kept_behind_those_of_the_present_one(clips, tmp_path):
    model = tiny()
    first = sweep(model, clips, Dials(patch=(8,)), tmp_path)
    rows = sweep(model, clips, Dials(patch=(16,)), tmp_path)
    assert [row.patch_freq for row in rows] == [16, 8]
    assert rows[1] == first[0]


def test_a_table_of_another_model_or_other_clips_is_not_touched(clips, tmp_path):
    model = tiny()
    sweep(model, clips, Dials(), tmp_path)
    text = (tmp_path / TABLE).read_text()
    with pytest.raises(InputError, match=r"another model.*--out"):
        sweep(tiny(), clips, Dials(), tmp_path)
    with pytest.raises(InputError, match=r"other clips.*--out"):
        sweep(model, clips[1:], Dials(), tmp_path)
    (tmp_path / ABOUT).unlink()
    with pytest.raises(InputError, match=ABOUT):
        sweep(model, clips, Dials(), tmp_path)
    assert (tmp_path / TABLE).read_text() == text


def test_a_folder_that_cannot_be_written_is_one_clear_line(clips, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match=r"file.*; name another"):
            sweep(tiny(), clips, Dials(), folder)


IMPOSSIBLE = {
    "patch higher than the spectrogram": (
        {},
        Dials(patch=(16, 64)),
        r"'patch 64, hop 10 ms'.*at most the 32 mel bins",
    ),
    "patch longer than a clip under crop": (
        {"remainder": "crop"},
        Dials(patch=((16, 30),)),
        r"patch 16x30.*leaves 18 of a clip; use patches of at most 18 frames",
    ),
    "cut shorter than a patch under crop": (
        {"remainder": "crop"},
        Dials(seconds=(1.0, 0.02)),
        r"0.02 s.*at most 2 frames",
    ),
    "pooling beyond a clip": ({}, Dials(pooling=(Pooling(factor=19),)), r"mean19.*by 18 or less"),
    "frame shift below a sample": ({}, Dials(hop_ms=(0.01,)), "at least 1 sample.*try 10"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_view_fails_before_anything_is_computed(clips, tmp_path, monkeypatch, case):
    overrides, dials, words = IMPOSSIBLE[case]

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(features_module, "load_audio", never)
    monkeypatch.setattr(sweep_module, "open_table", never)
    with pytest.raises(InputError, match=words) as error:
        sweep(tiny(**overrides), clips, dials, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("8,8,ten,none,,3,0.5,0.5,4,0.1,9,1", "hop_ms is 'ten'"),
        ("8,8,10,sum2,,3,0.5,0.5,4,0.1,9,1", "pool is 'sum2'"),
        ("8,8,10,none,,3,0.5,0.5,4,0.1,9,2", "keep|share"),
        ("8,8,10,none", "lacks the column seconds"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path, line, words):
    path = tmp_path / TABLE
    path.write_text(",".join(COLUMNS) + "\n" + line + "\n")
    with pytest.raises(InputError, match=words) as error:
        read_rows(path)
    assert f"{path} line 2" in str(error.value)


def test_a_table_without_the_share_of_tokens_kept_all(tmp_path):
    path = tmp_path / TABLE
    path.write_text(",".join(COLUMNS[:-1]) + "\n8,8,10,none,,3,0.5,nan,4,0.1,9\n")
    (row,) = read_rows(path)
    assert row.keep == 1
    assert math.isnan(row.mAP)


def test_worth_its_cost_is_what_no_other_point_beats():
    grid = list(itertools.product((1.0, 2.0, 3.0), (0.1, 0.5, 0.9)))
    for points in itertools.combinations(grid, 4):
        costs, scores = zip(*points, strict=True)
        oracle = [
            i
            for i, (cost, score) in enumerate(points)
            if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
        ]
        assert worth_their_cost(costs, scores) == sorted(oracle, key=lambda i: costs[i])
    assert worth_their_cost([1.0, 1.0], [0.5, 0.5]) == [0]


def test_what_a_sweep_was_measured_with_is_beside_its_table(clips, tmp_path):
    sweep(tiny(), clips, Dials(), tmp_path)
    assert set(json.loads((tmp_path / ABOUT).read_text())) == {"model", "clips"}
