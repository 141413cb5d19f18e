"""Masked pretraining on whatever recordings there are; no labels are needed."""

from melastic.training.config import (
    DataConfig,
    ModelChoice,
    OptimConfig,
    PretrainConfig,
    RunConfig,
)
from melastic.training.phases import Passing


def ssast() -> PretrainConfig:
    """Masked pretraining (SSAST) on any clips: patches of 40 ms that span all mel bins.

    The encoder is that of the recipes ``asc`` and ``esc50``, which can start from it:
    ``melastic train asc --init runs/ssast``. A twentieth of the clips is held out. All clips of the
    manifest are heard: keep test clips out with ``--data.train split=train`` or its like.
    """
    return PretrainConfig(
        name="ssast",
        data=DataConfig(train="all", test=None, val_share=0.05),
        model=ModelChoice.of(
            "ast-tiny",
            depth=4,
            num_heads=6,
            patch=(128, 4),
            input_size=(128, 504),
            pooling="mean",
            position_init="sincos",
        ),
        optim=OptimConfig(lr=1e-3, epochs=40, batch_tokens=2000),
        passing=Passing(batch="tokens", schedule="anew", warmup="each"),
        run=RunConfig(choose_by="loss"),
    )
