"""The sound set that the package generates itself."""

from melastic.frontend.augment import Augmentation
from melastic.patches.grid import FreqTime
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, RunConfig, TrainConfig
from melastic.training.curriculum import Draws


def sounds() -> TrainConfig:
    """Generated sounds of 0.2 to 8 s at many patch sizes and frame shifts: what the demo trains.

    ``melastic data prepare sounds --clips-per-class 100 --out sounds/manifest.csv`` writes the set.
    """
    return TrainConfig(
        name="sounds",
        data=DataConfig(train="split=train", val="split=val", test="split=test"),
        model=ModelChoice.of(
            "melastic-nano",
            depth=4,
            num_heads=4,
            patch=(128, 4),
            input_size=(128, 800),
            pooling="mean",
        ),
        draws=Draws(
            patches=tuple(FreqTime(128, frames) for frames in (2, 3, 4, 6, 8)),
            hops_ms=(10.0, 12.5, 16.0, 20.0),
            ramp_epochs=20,
            share=0.7,
        ),
        augment=Augmentation(
            warp_time=0.1, gain_db=6, roll=0.5, freq_masks=2, time_masks=2, time_mask_share=0.1
        ),
        optim=OptimConfig(lr=1.5e-3, epochs=70, batch_tokens=1200),
        run=RunConfig(evaluate_every=5),
    )
