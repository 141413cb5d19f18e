"""Laws of manifests: what is written is read, a selection cuts in two, mistakes are named."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melastic.data.manifest import (
    Clip,
    check_files,
    label_names,
    read_manifest,
    select,
    write_manifest,
)
from melastic.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=1)
LABELS = st.lists(
    TEXT.filter(lambda name: ";" not in name and name == name.strip()),
    min_size=1,
    max_size=3,
)
COLUMNS = st.lists(
    TEXT.filter(lambda name: name not in ("file", "label", "start_s", "end_s")),
    max_size=3,
    unique=True,
)


def write(folder: Path, text: str, name: str = "clips.csv") -> Path:
    """A manifest with exactly this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    """The message that a broken manifest gives: one line with its name."""
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@given(st.data())
def test_what_is_written_is_what_is_read(tmp_path_factory, data):
    columns = data.draw(COLUMNS)
    row = st.tuples(TEXT, LABELS, st.lists(TEXT, min_size=len(columns), max_size=len(columns)))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    folder = tmp_path_factory.mktemp("manifest")
    written = [
        {"file": file, "label": ";".join(labels), **dict(zip(columns, values, strict=True))}
        for file, labels, values in rows
    ]
    write_manifest(folder / "clips.csv", written)
    expected = [
        Clip(folder / file, tuple(labels), columns=dict(zip(columns, values, strict=True)))
        for file, labels, values in rows
    ]
    assert read_manifest(folder / "clips.csv") == expected
    assert [path.name for path in folder.iterdir()] == ["clips.csv"]


@given(start=st.floats(0, 1e4), length=st.floats(1e-3, 1e4))
def test_times_survive_writing_and_reading(tmp_path_factory, start, length):
    path = tmp_path_factory.mktemp("manifest") / "clips.csv"
    end = start + length
    write_manifest(path, [{"file": "a.wav", "label": "x", "start_s": start, "end_s": end}])
    (clip,) = read_manifest(path)
    assert (clip.start_s, clip.end_s) == (start, end)
    assert clip.columns == {}


def test_a_time_that_is_not_given_means_the_whole_file(tmp_path):
    (clip,) = read_manifest(write(tmp_path, "file,label,start_s,end_s\na.wav,x,,\n"))
    assert (clip.start_s, clip.end_s) == (0.0, None)


def test_files_are_found_beside_the_manifest_wherever_it_is_read_from(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep", "file,label\naudio/a.wav,x\n../b.wav,y\n/c.wav,z\n")
    monkeypatch.chdir(tmp_path)
    near, above, absolute = (clip.path for clip in read_manifest(Path("deep/clips.csv")))
    assert near.resolve() == path.parent / "audio" / "a.wav"
    assert above.resolve() == tmp_path / "b.wav"
    assert absolute == Path("/c.wav")


def test_labels_of_a_clip_are_split_at_semicolons_and_trimmed(tmp_path):
    (clip,) = read_manifest(write(tmp_path, "file,label\na.wav, dog ; cat;;\n"))
    assert clip.labels == ("dog", "cat")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    plain = write(tmp_path, "file,label,split\na.wav,x,train\n")
    saved = tmp_path / "windows.csv"
    saved.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    assert read_manifest(saved) == read_manifest(plain)


def test_json_lists_of_ast_say_the_same_as_a_csv(tmp_path):
    entries = [{"wav": "a.wav", "labels": "/m/1, /m/2"}, {"wav": "/b.wav", "labels": "/m/3"}]
    as_json = write(tmp_path, json.dumps({"data": entries}), "clips.json")
    as_csv = write(tmp_path, "file,label\na.wav,/m/1;/m/2\n/b.wav,/m/3\n")
    assert read_manifest(as_json) == read_manifest(as_csv)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", "line 1", "'file' is required"),
        ("path,label\na.wav,x\n", "line 1", "'file' is required"),
        ("file,class\na.wav,x\n", "line 1", "'label' is required"),
        ("file;label\na.wav;x\n", "line 1", "'file' is required"),
        ("file,label,label\na.wav,x,y\n", "line 1", "'label' is there twice"),
        ("file,label\na.wav,x\nb.wav\n", "line 3", "has not 2 columns"),
        ("file,label\na.wav,x,y\n", "line 2", "has not 2 columns"),
        ("file,label\na.wav,x\nb.wav,\n", "line 3", "the label is empty"),
        ("file,label\na.wav, ; \n", "line 2", "the label is empty"),
        ("file,label\n ,x\n", "line 2", "the file is empty"),
        ("file,label,start_s\na.wav,x,soon\n", "line 2", "start_s must be seconds"),
        ("file,label,start_s\na.wav,x,-1\n", "line 2", "start_s must be seconds"),
        ("file,label,end_s\na.wav,x,nan\n", "line 2", "end_s must be seconds"),
        ("file,label,end_s\na.wav,x,inf\n", "line 2", "end_s must be seconds"),
        ("file,label,start_s,end_s\na.wav,x,2,2\n", "line 2", "end_s must be after start_s"),
        ('file,label\n"a.wav,x\n', "line 2", "not valid CSV"),
        ('file,"label\na.wav,x\n', "line 1", "not valid CSV"),
        ("file,label\n", "", "lists no clips"),
    ],
)
def test_a_broken_csv_is_refused_with_its_name_and_line(tmp_path, text, line, reason):
    message = complaint(write(tmp_path, text))
    assert line in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"data": [', "line 1"),
        ("[]", "a JSON manifest reads"),
        ('{"clips": []}', "'data'"),
        ('{"data": [{"wav": "a.wav"}]}', "'labels'"),
        ('{"data": ["a.wav"]}', "a JSON manifest reads"),
        ('{"data": [{"wav": 1, "labels": "x"}]}', "entry 1: wav must be text"),
        ('{"data": [{"wav": "a", "labels": ["x"]}]}', "entry 1: labels must be text"),
        ('{"data": [{"wav": "a", "labels": "x"}, {"wav": "b", "labels": ""}]}', "entry 2: labels"),
        ('{"data": [{"wav": "a", "labels": null}]}', "entry 1: labels"),
        ('{"data": [{"wav": "", "labels": "x"}]}', "entry 1: wav"),
        ('{"data": []}', "lists no clips"),
        ("[" * 100_000, "a JSON manifest reads"),
    ],
)
def test_broken_json_is_refused_with_its_name_and_place(tmp_path, text, reason):
    assert reason in complaint(write(tmp_path, text, "clips.json"))


def test_a_manifest_that_is_no_text_file_is_refused(tmp_path):
    assert "no such manifest" in complaint(tmp_path / "absent.csv")
    assert "is a folder" in complaint(tmp_path)
    (tmp_path / "sound.csv").write_bytes(b"RIFF\xff\xfe\x00\x80")
    assert "save it as UTF-8" in complaint(tmp_path / "sound.csv")


def test_writing_refuses_no_rows_and_places_that_are_no_file(tmp_path):
    with pytest.raises(InputError, match="at least one clip"):
        write_manifest(tmp_path / "clips.csv", [])
    with pytest.raises(InputError, match="is a folder"):
        write_manifest(tmp_path, [{"file": "a", "label": "b"}])
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_manifest(tmp_path / "taken" / "clips.csv", [{"file": "a", "label": "b"}])
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_failed_write_leaves_the_old_manifest_alone(tmp_path):
    path = tmp_path / "clips.csv"
    write_manifest(path, [{"file": "a.wav", "label": "old"}])
    with pytest.raises(InputError, match="cannot be written"):
        write_manifest(path, [{"file": "\udcff.wav", "label": "new"}])
    assert read_manifest(path)[0].labels == ("old",)
    assert [file.name for file in tmp_path.iterdir()] == ["clips.csv"]


VALUES = st.sampled_from(["a", "b", "c"])


def clips_with(values: list[str]) -> list[Clip]:
    """One clip for each value of the column ``fold``."""
    return [
        Clip(Path(f"{i}.wav"), ("x",), columns={"fold": value}) for i, value in enumerate(values)
    ]


def chosen(clips: list[Clip], rule: str) -> list[Clip]:
    """What a rule names; nothing where that is refused."""
    with contextlib.suppress(InputError):
        return select(clips, rule)
    with pytest.raises(InputError, match="names no clip"):
        select(clips, rule)
    return []


@given(st.lists(VALUES, min_size=1, max_size=8), st.lists(VALUES, min_size=1, unique=True))
def test_a_rule_and_its_negation_cut_the_clips_in_two(values, named):
    clips = clips_with([*values, "a", "b", "c"])
    inside = chosen(clips, f"fold={','.join(named)}")
    outside = chosen(clips, f"fold!={','.join(named)}")
    assert [clip for clip in clips if clip.columns["fold"] in named] == inside
    assert sorted([*inside, *outside], key=lambda c: c.path) == sorted(clips, key=lambda c: c.path)


@given(st.lists(VALUES, min_size=1, max_size=8), VALUES, VALUES)
def test_joined_rules_name_what_each_of_them_names(values, one, other):
    clips = clips_with([*values, "a", "b", "c"])
    both = chosen(clips, f"fold!={one}&fold!={other}")
    assert both == [clip for clip in chosen(clips, f"fold!={one}") if clip.columns["fold"] != other]


def test_all_names_every_clip():
    assert select(clips_with(["a", "b"]), "all") == clips_with(["a", "b"])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("fold", "reads column=value"),
        ("fold=", "reads column=value"),
        ("=a", "reads column=value"),
        ("fold=a&", "reads column=value"),
        ("fold=z", "unknown value of the column fold in the selection 'fold=z': 'z'; known: a, b"),
        ("fold!=z", "unknown value"),
        ("fold=a,z", "unknown value"),
        ("fold!=a,b", "names no clip"),
        ("fodl=a", "did you mean fold"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_in_one_line(rule, reason):
    with pytest.raises(InputError, match=reason) as caught:
        select(clips_with(["a", "b"]), rule)
    assert "\n" not in str(caught.value)


def test_labels_come_in_natural_order():
    clips = [Clip(Path("a"), (name,)) for name in ("10", "9", "dog", "2", "cat")]
    assert label_names(clips) == ("2", "9", "10", "cat", "dog")


def test_missing_files_are_counted_and_the_first_is_named(tmp_path):
    (tmp_path / "there.wav").write_bytes(b"x")
    names = ("there.wav", "b.wav", "a.wav", "a.wav", "x" * 300)
    clips = [Clip(tmp_path / name, ("x",)) for name in names]
    with pytest.raises(InputError, match=r"3 of 4 files are missing, the first is .*a\.wav"):
        check_files(clips)
    check_files(clips[:1])


def test_spaces_around_a_cell_name_no_other_clips(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("file,label,split\na.wav,x,test\nb.wav,x, test\nc.wav,x,test \n")
    assert len(select(read_manifest(path), "split=test")) == 3


@pytest.mark.parametrize("labels", [["0", "1"], 5, None])
def test_labels_of_another_kind_are_refused_where_none_are_needed(tmp_path, labels):
    path = tmp_path / "clips.json"
    path.write_text(json.dumps({"data": [{"wav": "a.wav", "labels": labels}]}))
    with pytest.raises(InputError, match="entry 1: labels must be text"):
        read_manifest(path, labelled=False)
