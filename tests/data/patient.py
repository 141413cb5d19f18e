"""A small data set that tests make ill."""

from pathlib import Path

import numpy as np
import soundfile

from melastic.config import FrontendConfig
from melastic.data.doctor import Report, examine
from melastic.data.manifest import write_manifest

RATE = 16_000
SHORT = FrontendConfig(num_mels=16)


class DataSet:
    """A small data set that tests make ill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, object]] = []

    def sound(self, name: str, seconds: float = 0.1, rate: int = RATE, **columns: object) -> Path:
        """Add a clip of noise, no two alike."""
        noise = np.random.default_rng(len(self.rows)).uniform(-0.5, 0.5, round(seconds * rate))
        return self.clip(name, noise, rate, **columns)

    def clip(self, name: str, samples: np.ndarray, rate: int = RATE, **columns: object) -> Path:
        """Add a clip with exactly these samples."""
        path = self.folder / name
        floats = path.suffix == ".wav"
        soundfile.write(path, samples, rate, subtype="FLOAT" if floats else None)
        self.add(name, **columns)
        return path

    def add(self, name: str, label: str = "a", **columns: object) -> None:
        """List a file that is there already, or is not."""
        self.rows.append({"file": name, "label": label, "split": "", **columns})

    def examine(self, **options: object) -> Report:
        """What the doctor says."""
        columns = dict.fromkeys(key for row in self.rows for key in row)
        rows = [{key: row.get(key, "") for key in columns} for row in self.rows]
        write_manifest(self.folder / "clips.csv", rows)
        return examine(self.folder / "clips.csv", frontend=SHORT, **options)

    def problems(self) -> list[tuple[str, str]]:
        """Severity and message of each problem; every message is one line."""
        found = [(problem.severity, problem.message) for problem in self.examine().problems]
        assert not any("\n" in message for _, message in found)
        return found

    def problem(self) -> tuple[str, str]:
        """The only problem."""
        (found,) = self.problems()
        return found
