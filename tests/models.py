"""Small models that cover every combination of parts."""

import itertools

import melastic

POOLINGS = ("class", "class+distillation", "mean", "attention")
PATCHES = (((16, 16), (16, 16)), ((16, 16), (10, 10)), ((32, 3), (32, 3)), ((12, 5), (10, 4)))
POSITIONS = ("learned", "factorised")
COMBINATIONS = list(itertools.product(POOLINGS, PATCHES, POSITIONS))
MELS = 32


def small(pooling="mean", patch=((16, 16), (16, 16)), positions="learned", **overrides):
    settings = {
        "dim": 24,
        "depth": 2,
        "num_heads": 3,
        "patch": patch[0],
        "stride": patch[1],
        "input_size": (MELS, 60),
        "positions": positions,
        "pooling": pooling,
        **overrides,
    }
    return melastic.create_model("ast-tiny", num_classes=5, **settings)
