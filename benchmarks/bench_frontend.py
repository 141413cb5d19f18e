"""Log-mels: audio seconds per second on one core, beside every alternative, in one run."""

import importlib.util
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import kaldi_native_fbank
import librosa
import numpy as np
import torch

from benchmarks.report import in_turn, write
from melastic.frontend.fbank import log_mel

RATE = 16_000
CASES = {"32 clips of 1 s": (32, 1), "one clip of 10 s": (1, 10), "200 clips of 0.4 s": (200, 0.4)}
TORCHAUDIO = "torchaudio==2.11.0"


def torchaudio_kaldi() -> Any:
    """The Kaldi module of torchaudio: one Python file, loaded without the rest of the package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        subprocess.run([*command, TORCHAUDIO], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extract("torchaudio/compliance/kaldi.py", folder)
        sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
        path = Path(folder) / "torchaudio/compliance/kaldi.py"
        spec = importlib.util.spec_from_file_location("kaldi", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def native(samples: np.ndarray, mels: int) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = mels
    options.use_energy = False
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(RATE, samples)
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


def candidates(clips: torch.Tensor, kaldi: Any) -> dict[str, Callable[[], Any]]:
    arrays = clips.numpy()
    lists = [row.tolist() for row in arrays]
    settings: dict[str, Any] = {"htk_compat": True, "window_type": "hanning", "dither": 0.0}
    settings |= {"sample_frequency": RATE, "use_energy": False, "frame_shift": 10}

    def plain(mels: int) -> Callable[[], Any]:
        return lambda: [kaldi.fbank(clip[None], num_mel_bins=mels, **settings) for clip in clips]

    def mel(samples: np.ndarray, mels: int) -> np.ndarray:
        sizes: dict[str, Any] = {"n_fft": 512, "win_length": 400, "hop_length": 160}
        power = librosa.feature.melspectrogram(
            y=samples, sr=RATE, n_mels=mels, center=False, **sizes
        )
        return np.log(power + 1e-10)

    return {
        "melastic": lambda: log_mel(clips, num_mels=128),
        "torchaudio's kaldi.py": plain(128),
        "librosa, all clips in one call (not Kaldi's numbers)": lambda: mel(arrays, 128),
        "librosa, clip by clip": lambda: [mel(row, 128) for row in arrays],
        "melastic, 80 bins": lambda: log_mel(clips, num_mels=80),
        "torchaudio's kaldi.py, 80 bins": plain(80),
        "librosa, all clips in one call, 80 bins": lambda: mel(arrays, 80),
        "kaldi-native-fbank, 80 bins (refuses 128)": lambda: [native(row, 80) for row in lists],
    }


def main() -> None:
    torch.set_num_threads(1)
    kaldi = torchaudio_kaldi()
    rows = []
    for case, (count, seconds) in CASES.items():
        clips = torch.randn(count, round(seconds * RATE)) * 0.1
        theirs = candidates(clips, kaldi)["torchaudio's kaldi.py"]()
        if not torch.allclose(torch.stack(theirs).transpose(1, 2), log_mel(clips), atol=5e-3):
            raise ValueError("melastic and torchaudio disagree, so their times mean nothing")
        times = in_turn(candidates(clips, kaldi), rounds=40)
        for name, taken in times.items():
            own = times["melastic, 80 bins" if "80 bins" in name else "melastic"]
            rate = count * seconds / sorted(taken)[len(taken) // 2]
            slower = median(a / b for a, b in zip(taken, own, strict=True))
            rows.append((case, name, f"{rate:,.0f}", f"{slower:.2f}"))
    write(
        "frontend",
        "Log-mels on one core",
        ("audio", "code", "audio seconds per second", "times melastic's time"),
        rows,
        "Medians of 40 rounds in which the candidates take turns; the last column is the median of "
        "the ratios within a round. torchaudio and kaldi-native-fbank take one clip at a time.",
    )


if __name__ == "__main__":
    main()
