import pytest

from tests.data.patient import DataSet


@pytest.fixture
def healthy(tmp_path):
    """Two labels in two splits, two speakers in each, all recorded the same way."""
    data = DataSet(tmp_path)
    for split in ("train", "test"):
        for label in ("a", "b"):
            name, speaker = f"{split}_{label}.wav", f"{split}_{label}"
            data.sound(name, label=label, split=split, speaker=speaker)
    return data
