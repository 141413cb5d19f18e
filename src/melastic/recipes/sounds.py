"""The sound set that the package generates itself."""

from melastic.frontend.augment import Augmentation
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, TrainConfig


def sounds() -> TrainConfig:
    """Generated sounds of 0.2 to 8 s: what 'make demo' trains on, in a few minutes.

    ``melastic data prepare sounds --out sounds/manifest.csv`` writes the set.
    """
    return TrainConfig(
        name="sounds",
        data=DataConfig(train="split=train", val="split=val", test="split=test"),
        model=ModelChoice.of(
            "ast-nano", depth=4, num_heads=4, patch=(128, 4), input_size=(128, 800), pooling="mean"
        ),
        augment=Augmentation(
            warp_time=0.1, gain_db=6, roll=0.5, freq_masks=2, time_masks=2, time_mask_share=0.1
        ),
        optim=OptimConfig(lr=1.5e-3, epochs=80, batch_tokens=1200),
    )
