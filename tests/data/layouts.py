"""Public data sets in their original layout, tiny and made by rule."""

import csv
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def sound(path: Path, seconds: float = 0.1, silence_s: float = 0.0) -> None:
    """A file with some noise, and exact zeros behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).uniform(0.1, 0.5, round(seconds * RATE))
    soundfile.write(path, np.pad(noise, (0, round(silence_s * RATE))), RATE)


def table(path: Path, rows: list[dict[str, object]]) -> None:
    """A CSV file with these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def esc50(root: Path, *, take: bool = True) -> Path:
    """ESC-50 as published, with two clips in each of two folds."""
    rows = []
    for fold, source, letter, target, category in (
        (1, 100032, "A", 0, "dog"),
        (1, 100210, "B", 36, "vacuum_cleaner"),
        (2, 100038, "A", 10, "rain"),
        (2, 200000, "C", 49, "hand_saw"),
    ):
        name = f"{fold}-{source}-{letter}-{target}.wav"
        sound(root / "audio" / name, seconds=0.1 * fold, silence_s=0.2)
        row = {"filename": name, "fold": fold, "target": target, "category": category}
        row |= {"esc10": target in (0, 10), "src_file": source}
        rows.append(row | ({"take": letter} if take else {}))
    table(root / "meta" / "esc50.csv", rows)
    return root


def fsdd(root: Path) -> Path:
    """Spoken digits as published: two digits, three speakers, seven takes."""
    for speaker in ("theo", "george", "lucas"):
        for digit in (0, 7):
            for index in range(7):
                sound(root / "recordings" / f"{digit}_{speaker}_{index}.wav")
    return root


def asc(root: Path) -> Path:
    """Arabic Speech Commands as published: two words, three speakers, five takes."""
    for part, speaker in (("train", 1), ("val", 2), ("test", 3)):
        rows = []
        for word in ("yes", "zoom in", "start"):
            for take in range(1, 6):
                file = f"dataset/{word}/{speaker:08d}_NO_{take:02d}.wav"
                sound(root / file)
                rows.append({"file": file, "class": word})
        table(root / f"{part}.csv", rows)
    return root


def speech_commands(root: Path) -> Path:
    """Speech Commands as published: two words and background noise."""
    for word in ("yes", "bed"):
        for speaker in ("0a7c2a8d", "1b4c9b89", "2c7c33e8"):
            sound(root / word / f"{speaker}_nohash_0.wav")
    sound(root / "_background_noise_" / "running_tap.wav")
    (root / "validation_list.txt").write_text("yes/1b4c9b89_nohash_0.wav\n")
    lines = "yes/2c7c33e8_nohash_0.wav\nbed/2c7c33e8_nohash_0.wav\n"
    (root / "testing_list.txt").write_text(lines)
    return root


MAKERS = {"esc50": esc50, "fsdd": fsdd, "asc": asc, "speech-commands": speech_commands}


def rows_of(manifest: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))
