import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("default")
torch.set_num_threads(min(2, os.cpu_count() or 1))

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder():
    """The real recordings."""
    folder = Path(os.environ.get("MELASTIC_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real recordings are not on this machine (MELASTIC_DATA)")
    return folder


def tone(hz, seconds, rate=16_000, level=0.3, seed=0):
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (level * np.sin(2 * np.pi * hz * time) + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """A manifest of short tones that a small model learns to tell apart in a few epochs."""
    folder = tmp_path_factory.mktemp("tones")
    rows = ["file,label,split"]
    for label, hz in (("low", 300), ("middle", 1200), ("high", 4000)):
        for index in range(10):
            name = f"{label}_{index}.wav"
            samples = tone(hz * (1 + 0.02 * index), 0.2 + 0.03 * index, seed=index)
            soundfile.write(folder / name, samples, 16_000)
            rows.append(f"{name},{label},{('train', 'train', 'train', 'val', 'test')[index % 5]}")
    manifest = folder / "tones.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest
