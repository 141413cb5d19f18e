"""Free Spoken Digit Dataset: ten digits, six speakers."""

from dataclasses import replace

from melastic.config import Level
from melastic.frontend.augment import Augmentation
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, TrainConfig


def fsdd() -> TrainConfig:
    """Spoken digits, official split (takes 0-4 of each speaker are the test)."""
    return TrainConfig(
        name="fsdd",
        data=DataConfig(train="split=train", test="split=test"),
        model=ModelChoice.of(
            "ast-nano",
            depth=4,
            num_heads=4,
            sample_rate=8000,
            patch=(64, 2),
            input_size=(64, 240),
            pooling="mean",
        ),
        augment=Augmentation(
            mixup=0.5,
            mixup_beta=0.5,
            warp_time=0.25,
            warp_freq=0.1,
            gain_db=6,
            filter_db=6,
            noise_db=50,
            freq_masks=2,
            freq_mask_bins=10,
            time_masks=2,
        ),
        optim=OptimConfig(lr=2e-3, epochs=45, batch_tokens=1000),
    )


def fsdd_loso() -> TrainConfig:
    """Spoken digits of a speaker who was never heard: fold 1 of leave-one-speaker-out.

    Other folds: ``--data.train loso_fold!=2 --data.test loso_fold=2``. Clips come without their
    level, which differs by 20 dB between speakers; scaled frequencies, a random filter and another
    tempo stand for another voice and microphone.
    """
    base = fsdd()
    architecture = replace(base.model.architecture, level=Level(floor_db=60.0))
    return replace(
        base,
        name="fsdd-loso",
        data=DataConfig(train="loso_fold!=1", test="loso_fold=1"),
        model=replace(base.model, architecture=architecture),
        augment=replace(
            base.augment, mixup=0.7, warp_freq=0.0, warp_hz=0.2, gain_db=3, filter_db=12
        ),
    )
