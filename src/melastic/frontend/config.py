"""How a waveform becomes a spectrogram. Each default stands here once, with its unit."""

import math
from dataclasses import dataclass

from melastic.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Log-mels relative to the clip's own level, above a floor: microphones differ in both.

    The level is the mean log-energy of the louder quarter of the frames.
    """

    floor_db: float = 60.0
    """How far below the level a constant floor is added, in which fainter sounds drown (dB)."""

    def __post_init__(self) -> None:
        """Refuse a floor above the level."""
        if not self.floor_db > 0:
            raise InputError(f"floor_db is positive, got {self.floor_db}; try 60")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaneyMel:
    """Power of centred frames on Slaney's mel scale, filters of equal area: librosa's log-mels.

    Source: HTS-AT (RetroCirce/HTS-Audio-Transformer), which computes them with torchlibrosa.
    """

    low_hz: float = 50.0
    """Lower edge of the first filter (Hz)."""
    high_hz: float = 14_000.0
    """Upper edge of the last filter (Hz); above half the sample rate filters are silent."""

    def __post_init__(self) -> None:
        """Refuse edges that leave no band."""
        if not 0 <= self.low_hz < self.high_hz:
            raise InputError(
                f"low_hz is at least 0 and below high_hz, got {self.low_hz} and {self.high_hz}; "
                "try 50 and 14000"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendConfig:
    """Waveform to normalised log-mel spectrogram: ``(log_mel - mean) / (2 * std)``.

    Source: AST (YuanGongND/ast, dataloader) for the rule; mean and std are AudioSet's there.
    """

    sample_rate: int = 16_000
    """Samples per second (Hz)."""
    num_mels: int = 128
    """Mel bins."""
    hop_ms: float = 10.0
    """Step between frames (ms)."""
    window_ms: float = 25.0
    """Analysis window (ms)."""
    mean: float = -4.2677393
    """Mean of the log-mels of the training set (natural log of power)."""
    std: float = 4.5689974
    """Standard deviation of the log-mels of the training set (natural log of power)."""
    slaney: SlaneyMel | None = None
    """Frames and filters of librosa, as HTS-AT has them; None: those of Kaldi, as AST has them."""
    level: Level | None = None
    """Take the clip's level off; None: log-mels of the waveform as it is, as AST has them."""
    fixed_frames: int | None = None
    """Cut or zero-pad to this many frames before normalising, as AST does; None keeps them all."""

    def __post_init__(self) -> None:
        """Refuse sizes that give no spectrogram."""
        for name in ("sample_rate", "num_mels", "fixed_frames"):
            value = getattr(self, name)
            if not isinstance(value, int | None) or isinstance(value, bool):
                raise InputError(f"{name} is a whole number, got {value!r}; give an int")
        for name in ("hop_ms", "window_ms", "mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{name} is a finite number, got {value!r}; give another")
        for name in ("sample_rate", "num_mels", "hop_ms", "window_ms", "std"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}; raise it")
        if self.fixed_frames is not None and self.fixed_frames < 1:
            raise InputError(f"fixed_frames is at least 1, got {self.fixed_frames}; None keeps all")
