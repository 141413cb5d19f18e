"""A small model that knows the labels of the tones."""

import melastic

MELS = 32


def tiny(**overrides):
    settings = {
        "labels": ("low", "middle", "high"),
        "depth": 1,
        "dim": 24,
        "num_heads": 2,
        "patch": (16, 4),
        "input_size": (MELS, 50),
        **overrides,
    }
    return melastic.create_model("ast-nano", **settings)
