"""Laws of the manifests of real recordings."""

from pathlib import Path

import pytest

from melastic.data.manifest import read_manifest
from melastic.data.prepare import prepare
from tests.data.layouts import rows_of, table


@pytest.fixture(scope="module")
def real(data_folder, tmp_path_factory):
    """Manifests of the real recordings, and what was said of them."""
    folder = tmp_path_factory.mktemp("real")
    names = ("esc50", "fsdd", "asc")
    return {name: prepare(name, data_folder / name, folder / f"{name}.csv") for name in names}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "clips", "labels", "splits"),
    [
        ("esc50", 2000, 50, dict.fromkeys("12345", 400)),
        ("fsdd", 3000, 10, {"test": 300, "train": 2700}),
        ("asc", 12000, 40, {"test": 2400, "train": 7200, "val": 2400}),
    ],
)
def test_the_real_recordings_are_listed_with_their_official_splits(
    real, name, clips, labels, splits
):
    summary = real[name]
    assert (summary.clips, summary.labels, summary.splits) == (clips, labels, splits)
    assert len(rows_of(summary.manifest)) == clips
    speakers = {(row.get("split"), row.get("speaker")) for row in rows_of(summary.manifest)}
    assert len(speakers) == {"esc50": 1, "fsdd": 12, "asc": 18 + 6 + 6}[name]


@pytest.mark.data
def test_the_real_lengths_of_esc50_are_kept(tmp_path, data_folder):
    prepare("esc50", data_folder / "esc50", tmp_path / "clips.csv", trim_silence=True)
    ends = [clip.end_s or 0 for clip in read_manifest(tmp_path / "clips.csv")]
    assert (min(ends), max(ends)) == (0.37, 5.0)


@pytest.mark.data
@pytest.mark.parametrize(("name", "step"), [("fsdd", 1), ("asc", 7), ("esc50", 1)])
def test_the_original_layout_gives_the_real_recordings_the_same_columns(
    tmp_path, data_folder, real, name, step
):
    """Files of the original layout are named by the metadata, and empty; `step` thins them out."""
    root = tmp_path / "original"
    lists: dict[str, list[dict[str, object]]] = {}
    expected = {}
    metadata = rows_of(data_folder / name / "metadata.csv")
    for row, ours in list(zip(metadata, rows_of(real[name].manifest), strict=True))[::step]:
        stem = Path(row["file"]).stem
        names = {
            "fsdd": f"recordings/{stem}.wav",
            "asc": row["source"],
            "esc50": f"audio/{stem}.wav",
        }
        file = root / names[name]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        if name == "asc":
            listed = {"file": names[name], "class": row["label"]}
            lists.setdefault(f"{row['split']}.csv", []).append(listed)
        if name == "esc50":
            listed = {"filename": file.name, "fold": row["fold"], "target": row["target"]}
            listed |= {"category": row["label"], "esc10": row["esc10"] == "1"}
            lists.setdefault("meta/esc50.csv", []).append(listed)
        expected[names[name]] = {k: v for k, v in ours.items() if k not in ("file", "content_s")}
    for path, rows in lists.items():
        table(root / path, rows)
    prepare(name, root, root / "clips.csv")
    assert {row.pop("file"): row for row in rows_of(root / "clips.csv")} == expected
