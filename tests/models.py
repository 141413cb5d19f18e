"""Small models that cover every combination of parts."""

import itertools

import melastic

POOLINGS = ("class", "class+distillation", "mean", "attention")
PATCHES = (((16, 16), (16, 16)), ((16, 16), (10, 10)), ((32, 3), (32, 3)), ((12, 5), (10, 4)))
POSITIONS = ("learned", "factorised")
COMBINATIONS = list(itertools.product(POOLINGS, PATCHES, POSITIONS))
VARIANTS = ("fo-fo", "fo-bi", "bi-bi")
PLACES = ("first", "middle", "last", "both")
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


def mamba(variant="fo-bi", preset="aum-tiny", **overrides):
    settings = {
        "dim": 24,
        "depth": 2,
        "variant": variant,
        "num_heads": 3,
        "input_size": (MELS, 60),
        **overrides,
    }
    return melastic.create_model(preset, num_classes=5, **settings)


def windows(pooling="token-semantic", **overrides):
    settings = {
        "dim": 12,
        "depths": (2, 2, 1),
        "num_heads": 2,
        "window": 3,
        "patch": (4, 4),
        "bands": 2,
        "input_size": (MELS, 60),
        "pooling": pooling,
        "mel": "kaldi",
        "window_ms": 25.0,
        "sample_rate": 16_000,
        **overrides,
    }
    return melastic.create_model("htsat-nano", num_classes=5, **settings)


def every_model():
    """Name and maker of each combination of encoder, pooling, patches and positions."""
    for pooling, patch, positions in COMBINATIONS:
        name = f"attention-{pooling}-{'x'.join(map(str, patch[0]))}-{patch[1][0]}-{positions}"
        yield name, lambda p=(pooling, patch, positions): small(*p)
    for variant in VARIANTS:
        for place in PLACES:
            parts = {"variant": variant, "class_token": place}
            yield f"{variant}-{place}", lambda parts=parts: mamba(**parts)
        for pooling in ("mean", "attention"):
            parts = {"variant": variant, "pooling": pooling}
            yield f"{variant}-{pooling}", lambda parts=parts: mamba(**parts)
    for patch, stride in PATCHES[1:]:
        parts = {"patch": patch, "stride": stride, "positions": "factorised", "reading": "place"}
        yield f"fo-bi-{patch[0]}x{patch[1]}", lambda parts=parts: mamba(**parts)
    for family in ("flexiaum", "elasticaum", "melasticaum"):
        yield family, lambda preset=f"{family}-nano": mamba(preset=preset)
    for pooling, patch in itertools.product(("token-semantic", "mean"), ((4, 4), (8, 2))):
        parts = {"pooling": pooling, "patch": patch}
        yield f"windows-{pooling}-{patch[0]}x{patch[1]}", lambda parts=parts: windows(**parts)


MODELS = dict(every_model())
