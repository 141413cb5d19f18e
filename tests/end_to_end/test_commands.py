import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import melastic as package
from melastic.evaluation.seen import clip_through
from melastic.serialize import to_json
from tests.conftest import tone
from tests.end_to_end.shell import TINY, melastic


@pytest.fixture(scope="module")
def run(tones, tmp_path_factory):
    """A finished run on tones."""
    folder = tmp_path_factory.mktemp("runs") / "tones"
    config = folder.parent / "config.json"
    config.write_text(melastic("recipes", "show", "sounds", check=0).stdout)
    done = melastic(
        *(
            "train",
            config,
            "--out",
            folder,
            "--data.manifest",
            tones,
            "--optim.epochs",
            "12",
            *TINY,
        ),
        check=0,
    )
    assert "test: accuracy" in done.stderr
    return folder


def test_training_learns_tones_and_leaves_a_run_folder(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test"]["accuracy"] == 1.0
    assert [row["epoch"] for row in rows[:-1]] == list(range(1, 13))
    for name in ("curves.png", "confusion.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert "accuracy 100.00 %" in (run / "model" / "README.md").read_text()
    assert not [path for path in run.rglob("*") if path.name.endswith((".part", ".old"))]


def test_the_best_epoch_on_the_held_out_clips_is_kept(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(row["val"]["clips"] == 6 for row in rows if "val" in row)


def test_evaluation_gives_the_numbers_of_the_run(run, tones):
    done = melastic("evaluate", run, tones, "--json", check=0)
    found = json.loads(done.stdout)
    wanted = {
        "clips",
        "accuracy",
        "mAP",
        "auc",
        "d_prime",
        "loss",
        "view",
        "gmacs_per_clip",
        "seconds",
    }
    assert wanted <= set(found)
    assert (found["clips"], found["accuracy"]) == (6, 1.0)
    everything = melastic("evaluate", run, tones, "--json", "--select", "all", check=0)
    assert json.loads(everything.stdout)["clips"] == 30


def test_a_shorter_view_costs_less(run, tones):
    costs = []
    for seconds in ("0.1", "10"):
        done = melastic("evaluate", run, tones, "--json", "--seconds", seconds, check=0)
        costs.append(json.loads(done.stdout)["gmacs_per_clip"])
    assert costs[0] < costs[1]


def test_shell_and_python_classify_alike(run, tones):
    files = [tones.parent / "low_4.wav", tones.parent / "high_4.wav"]
    done = melastic("classify", run, *files, "--json", "--top", "2", check=0)
    model = package.load(run)
    for entry, file, label in zip(json.loads(done.stdout), files, ("low", "high"), strict=True):
        assert entry["file"] == str(file)
        assert entry["view"]["hop_ms"] == 10.0
        best = model.classify(file, top=2)
        assert [p["label"] for p in entry["predictions"]] == [p.label for p in best]
        assert entry["predictions"][0]["label"] == label
        assert entry["predictions"][0]["score"] == pytest.approx(best[0].score, abs=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
def test_embeddings_are_those_of_python(run, tones, tmp_path, suffix):
    file, out = tones.parent / "low_4.wav", tmp_path / f"vectors{suffix}"
    melastic("embed", run, file, "--out", out, check=0)
    if suffix == ".npz":
        vector = np.load(out)["embeddings"][0]
    elif suffix == ".json":
        vector = np.array(json.loads(out.read_text())[0]["embedding"])
    else:
        vector = np.array(out.read_text().splitlines()[1].split(",")[1:], dtype=float)
    model = package.load(run)
    oracle = model.embed([model.spectrogram(file)])[0].detach().numpy()
    np.testing.assert_allclose(vector, oracle, atol=1e-5)


def test_files_are_classified_and_embedded_through_every_dial(run, tones, tmp_path):
    file, out, model = tones.parent / "low_4.wav", tmp_path / "vector.npz", package.load(run)
    words = [
        "--patch",
        "32x8",
        "--hop-ms",
        "5",
        "--pool",
        "mean2",
        "--seconds",
        "0.3",
        "--keep",
        "0.5",
    ]
    pooling = package.Pooling(kind="mean", factor=2)
    view = package.View(patch=(32, 8), hop_ms=5, pooling=pooling, seconds=0.3, keep=0.5)
    done = melastic("classify", run, file, "--json", *words, check=0)
    found = json.loads(done.stdout)[0]
    assert found["view"] == to_json(view)
    scores = [p.score for p in model.classify(file, view=view)]
    assert [p["score"] for p in found["predictions"]] == pytest.approx(scores, abs=1e-5)
    assert scores != pytest.approx([p.score for p in model.classify(file)], abs=1e-5)
    melastic("embed", run, file, "--out", out, *words, check=0)
    waveform = package.load_audio(file, sample_rate=16000)
    vector = model.embed(*clip_through(model, waveform, view))[0].detach().numpy()
    np.testing.assert_allclose(np.load(out)["embeddings"][0], vector, atol=1e-5)


def test_a_run_of_another_view_than_the_models_own_says_so(run, tones, tmp_path):
    other, file = tmp_path / "other", tones.parent / "low_4.wav"
    shutil.copytree(run, other)
    config = json.loads((other / "config.json").read_text())
    config["view"] |= {"patch": 48, "seconds": 0.5, "keep": 0.9, "hop_ms": 12.5}
    config["view"]["pooling"]["factor"] = 2
    (other / "config.json").write_text(json.dumps(config))
    options = "--patch 48 --hop-ms 12.5 --pool mean2 --seconds 0.5 --keep 0.9"
    for command in (("evaluate", other, tones), ("classify", other, file)):
        assert f"give {options} to see them so" in melastic(*command, check=0).stderr
        assert "to see them so" not in melastic(*command, "--patch", "48", check=0).stderr


def test_results_go_to_stdout_and_nothing_else_does(run, tones):
    done = melastic("classify", run, tones.parent / "low_4.wav", "--json", check=0)
    json.loads(done.stdout)
    assert done.stderr == ""


def test_models_recipes_and_info_are_listed_as_json(run):
    models = json.loads(melastic("models", "--json", check=0).stdout)
    assert {"name", "bundled", "parameters"} <= set(models[0])
    assert "ast-base" in [row["name"] for row in models]
    recipes = json.loads(melastic("recipes", "--json", check=0).stdout)
    assert {"esc50", "asc", "fsdd"} <= {row["name"] for row in recipes}
    found = json.loads(melastic("info", run, "--json", check=0).stdout)
    assert found["parameters"] == sum(
        p.numel() for p in load_file(run / "model/model.safetensors").values()
    )


def test_a_recipe_that_is_shown_is_a_config_that_trains(tmp_path):
    for name in ("esc50", "fsdd-loso"):
        path = tmp_path / f"{name}.json"
        path.write_text(melastic("recipes", "show", name, check=0).stdout)
        done = melastic("train", path)
        assert done.returncode == 2
        assert "data.manifest is required" in done.stderr


def test_settings_that_change_nothing_are_named():
    words = ("--model.window", "4", "--model.depth", "3", "--model.patch", "128x5")
    said = melastic("train", "asc", *words).stderr.splitlines()
    assert said[0] == "--model.window changes nothing in this ast-tiny; leave it out"
    assert said[1].startswith("melastic: error: data.manifest is required")
    said = melastic("train", "asc-htsat", *words[:4]).stderr.splitlines()
    assert said[0] == "--model.depth changes nothing in this htsat-nano; leave it out"
    assert len(said) == 2


def test_help_of_a_group_of_commands_lists_them_and_no_others():
    listed = [line.split()[:2] for line in melastic("data", "--help", check=0).stdout.splitlines()]
    assert [words for words in listed if words[:1] == ["data"]] == [
        ["data", name] for name in ("prepare", "join", "stats")
    ]
    assert not any(words[:1] == ["train"] for words in listed)


def test_statistics_and_doctor_read_a_manifest(tones):
    found = json.loads(melastic("data", "stats", tones, "--json", check=0).stdout)
    report = json.loads(melastic("doctor", tones, "--json", check=0).stdout)
    assert report["contents"]["log_mels"]["mean"] == pytest.approx(found["mean"], abs=1e-4)
    assert "30" in melastic("doctor", tones, check=0).stdout


def test_a_run_is_not_overwritten(run, tones):
    done = melastic("train", "sounds", "--out", run, "--data.manifest", tones)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr


def one_line(done, code=2):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


BAD = {
    "missing.wav": (None, "no such file"),
    "empty.wav": (b"", "is empty"),
    "text.wav": (b"these are words, not samples" * 9, "cannot be read|not an audio format"),
    "folder.wav": ("folder", "is a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_one_line_and_exit_code_2(run, tmp_path, name):
    content, words = BAD[name]
    file = tmp_path / name
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    line = one_line(melastic("classify", run, file))
    assert str(file) in line
    assert any(word in line for word in words.split("|"))


def test_samples_that_are_not_numbers_or_too_few_are_one_line(run, tmp_path):
    for name, samples, words in (
        ("nan.wav", np.full(8000, np.nan), "NaN"),
        ("none.wav", np.zeros(0), "no samples"),
        ("one.wav", np.zeros(1), "at least one window"),
    ):
        soundfile.write(tmp_path / name, samples.astype(np.float32), 16_000, subtype="FLOAT")
        line = one_line(melastic("classify", run, tmp_path / name))
        assert words in line
        assert name in line


def test_stereo_and_odd_rates_are_classified(run, tmp_path):
    for rate in (8_000, 11_025, 44_100):
        samples = tone(300, 0.5, rate)
        path = tmp_path / f"{rate}.wav"
        soundfile.write(path, np.stack([samples, samples], axis=1), rate)
        found = json.loads(melastic("classify", run, path, "--json", check=0).stdout)
        assert found[0]["predictions"][0]["label"] == "low"


def test_a_bad_file_among_good_ones_hides_no_result(run, tones, tmp_path):
    good = tones.parent / "low_4.wav"
    done = melastic("classify", run, good, tmp_path / "missing.wav", "--json")
    assert done.returncode == 2
    assert [entry["file"] for entry in json.loads(done.stdout)] == [str(good)]
    assert "missing.wav" in done.stderr


def test_embedding_writes_nothing_if_a_file_is_bad(run, tones, tmp_path):
    out = tmp_path / "vectors.npz"
    done = melastic(
        "embed", run, tones.parent / "low_4.wav", tmp_path / "missing.wav", "--out", out
    )
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_exit_code_2_without_a_traceback(tmp_path):
    done = melastic("train", "fsdd", "--optim.learning-rate", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--optim.learning-rate" in done.stderr


def test_settings_that_cannot_train_are_one_line(tones, tmp_path):
    for words, hint in (
        (["--optim.batch-tokens", "3"], "batch_tokens"),
        (["--data.test", "split=tset"], "did you mean test?"),
        (["--data.test", "splt=test"], "did you mean split"),
        (["--data.val", "split=test"], "name the same clips"),
        (["--data.train", "all"], "must not share clips"),
        (["--data.val", "split=test,val"], "data.val and data.test must not share clips"),
        (["--optim.lr", "-1"], "optim.lr"),
        (["--model.num-heads", "5"], "multiple of num_heads"),
        (["--model.class-token", "none", "--model.pooling", "class"], "needs a class token"),
    ):
        done = melastic(
            *("train", "sounds", "--data.manifest", tones, "--out", tmp_path / "run", *TINY, *words)
        )
        assert hint in one_line(done)


def test_results_go_nowhere_where_no_file_can_be(run, tones):
    out = tones / "vectors.npz"  # below a file
    done = melastic("embed", run, tones.parent / "low_4.wav", "--out", out)
    assert "cannot be written (its folder:" in one_line(done)


def test_clips_with_several_labels_are_not_scored_by_a_model_that_names_one(run, tones, tmp_path):
    manifest = tmp_path / "several.csv"
    manifest.write_text(f"file,label\n{tones.parent / 'low_4.wav'},low;high\n")
    done = melastic("evaluate", run, manifest, "--select", "all")
    assert "with one label, got low, high" in one_line(done)


def test_a_document_has_null_where_a_score_is_no_number(run, tones):
    done = melastic("evaluate", run, tones, "--json", check=0)
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert found["auc"] == 1
    assert found["d_prime"] is None


def test_stored_views_are_chosen_by_held_out_clips(run, tones, tmp_path):
    done = melastic(
        "sweep", run, tones, "--hop-ms", "10", "20", "--out", tmp_path, "--store", check=0
    )
    assert "the run's held-out clips (split=val)" in done.stderr
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    clips = rows[0].split(",").index("clips")
    assert {row.split(",")[clips] for row in rows[1:]} == {"6"}


def test_a_waveform_is_a_tensor_or_an_array():
    model = package.load("digits")
    samples, rate = (
        np.sin(np.arange(4000) / 5).astype(np.float64),
        model.config.frontend.sample_rate,
    )
    assert rate == 8000
    expected = model.classify(torch.from_numpy(samples))
    assert model.classify(samples) == expected
    with pytest.raises(package.InputError, match="has one axis"):
        model.classify(samples[None])


def test_help_is_printed_for_every_command():
    overview = melastic("--help", check=0).stdout
    for verb in ("train", "evaluate", "classify", "embed", "models", "info", "doctor"):
        assert verb in overview
        assert verb in melastic(verb, "--help", check=0).stdout
