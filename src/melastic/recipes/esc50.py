"""ESC-50: environmental sounds, 50 classes, five official folds."""

from melastic.frontend.augment import Augmentation
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, TrainConfig
from melastic.training.curriculum import Draws


def esc50() -> TrainConfig:
    """ESC-50 without pretraining: folds 2-5 are trained on, fold 1 is the test.

    Other folds: ``--data.train fold!=2 --data.test fold=2``. Meant for clips without the digital
    silence at their ends (``melastic data prepare esc50 … --trim-silence``). A quarter of the
    tokens is left out in training.
    """
    return TrainConfig(
        name="esc50",
        data=DataConfig(train="fold!=1", test="fold=1"),
        model=ModelChoice.of(
            "ast-tiny", depth=4, num_heads=6, patch=(128, 8), input_size=(128, 504), pooling="mean"
        ),
        draws=Draws(keep=(0.75, 0.75)),
        augment=Augmentation(
            mixup=0.6,
            mixup_beta=0.5,
            warp_time=0.2,
            warp_freq=0.1,
            shift_freq=3,
            roll=0.5,
            gain_db=6,
            filter_db=4,
            noise_db=50,
            noise=0.3,
            freq_masks=2,
            freq_mask_bins=14,
            time_masks=2,
            time_mask_share=0.1,
        ),
        optim=OptimConfig(lr=1.5e-3, epochs=170, batch_tokens=2000, weight_decay=0.1),
    )


def esc10() -> TrainConfig:
    """ESC-10, the ten-class part of ESC-50: folds 2-5 are trained on, fold 1 is the test."""
    base = esc50()
    return TrainConfig(
        name="esc10",
        data=DataConfig(train="esc10=1&fold!=1", test="esc10=1&fold=1"),
        model=base.model,
        draws=base.draws,
        augment=base.augment,
        optim=base.optim,
    )
