"""Arabic Speech Commands: 40 keywords, 30 speakers."""

from melastic.frontend.augment import Augmentation
from melastic.training.config import DataConfig, ModelChoice, OptimConfig, RunConfig, TrainConfig
from melastic.training.phases import Passing


def asc() -> TrainConfig:
    """Arabic Speech Commands, all 40 keywords, official speaker-disjoint split."""
    return TrainConfig(
        name="asc",
        data=DataConfig(train="split=train", val="split=val", test="split=test"),
        model=ModelChoice.of(
            "ast-tiny",
            depth=4,
            num_heads=6,
            patch=(128, 3),
            input_size=(128, 102),
            pooling="mean",
            position_init="sincos",
        ),
        augment=Augmentation(
            mixup=0.2,
            mixup_beta=0.5,
            warp_time=0.2,
            warp_freq=0.15,
            roll=0.1,
            gain_db=6,
            filter_db=12,
            noise_db=20,
            freq_masks=2,
            time_masks=2,
        ),
        optim=OptimConfig(lr=1.5e-3, epochs=45, batch_tokens=2200),
        passing=Passing(batch="tokens", schedule="anew", warmup="each"),
        run=RunConfig(evaluate_every=3),
    )
