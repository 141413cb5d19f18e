"""ESC-50: environmental sounds, 50 classes, five official folds."""

from melastic.frontend.augment import Augmentation
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, TrainConfig


def esc50() -> TrainConfig:
    """ESC-50 without pretraining: folds 2-5 are trained on, fold 1 is the test.

    Other folds: ``--data.train fold!=2 --data.test fold=2``.
    """
    return TrainConfig(
        name="esc50",
        data=DataConfig(train="fold!=1", test="fold=1"),
        model=ModelChoice.of(
            "ast-tiny", depth=4, num_heads=6, patch=(128, 8), input_size=(128, 504), pooling="mean"
        ),
        augment=Augmentation(
            mixup=0.5,
            mixup_beta=0.5,
            warp_time=0.2,
            warp_freq=0.1,
            shift_freq=3,
            roll=0.5,
            gain_db=6,
            filter_db=6,
            freq_masks=2,
            time_masks=2,
        ),
        optim=OptimConfig(lr=1.5e-3, epochs=200, batch_tokens=4096, weight_decay=0.1),
    )


def esc10() -> TrainConfig:
    """ESC-10, the ten-class part of ESC-50: folds 2-5 are trained on, fold 1 is the test."""
    base = esc50()
    return TrainConfig(
        name="esc10",
        data=DataConfig(train="esc10=1&fold!=1", test="esc10=1&fold=1"),
        model=base.model,
        augment=base.augment,
        optim=base.optim,
    )
