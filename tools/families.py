"""Families of flexible models and of the fixed ones that they are held to."""

from dataclasses import dataclass

from melastic.patches.view import View
from melastic.recipes.flexible import MANY_LARGE, PATCHES

HOPS = ("10", "12", "16", "20", "24", "30", "36", "40")
POOLINGS = ("none", "mean2", "mean3", "mean4", "max2", "max3", "max4")
SHARES = ("0.3", "0.5", "0.7", "0.8", "0.9", "1")
EVEN = (8, 8, 10, 12, 20, 20, *3 * (24,), 30, 30, 32, 32, *4 * (40,), *6 * (48,))
"""Patch sizes, as often as makes them about equally good."""
EVEN_HOPS = (*HOPS, *2 * ("24", "30"), *4 * ("36", "40"))
"""Frame shifts (ms), the long ones more often."""
FIXED_COLUMNS = ("asc-aum-columns", "--optim.epochs", "15")


def steps_of(tokens: int) -> tuple[str, str]:
    """Steps of so many tokens: where clips are shorter, they hold as many clips that way."""
    return "--optim.batch-tokens", str(tokens)


ON_SOUNDS = ("esc50", "--optim.epochs", "120")
ON_VOICES = ("fsdd-loso",)
LONGER = ("--optim.epochs", "40", "--draws.ramp-epochs", "10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that are compared with each other, and where they are read."""

    models: dict[str, tuple[str, ...]]
    """What is trained, as ``melastic train`` takes it; the first is a fixed model that sees a clip
    as the flexible ones do unless told otherwise."""
    started: dict[str, tuple[str, tuple[str, ...]]]
    """The same from trained models, further epochs: which model, and what is trained."""
    taught: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Models that learn from another's scores: what that is trained with, and what they are."""
    dials: dict[str, tuple[str, ...]]
    """Values at which all models are read, each as ``melastic sweep`` takes it."""
    own: View
    """How the flexible models see a clip unless told otherwise."""
    whole: tuple[str, ...]
    """Models with many dials: the last that is there is drawn."""
    dashed: dict[str, tuple[str, ...]]
    """Models that are drawn beside it, by dial."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model."""
        return (*self.models, *self.started, *self.taught)


FAMILIES = {
    "squares": Family(
        models={
            "ast-16": ("asc-ast",),
            "ast-8": ("asc-ast", "--model.patch", "8"),
            "ast-24": ("asc-ast", "--model.patch", "24", *steps_of(1200)),
            "ast-32": ("asc-ast", "--model.patch", "32"),
            "ast-48": ("asc-ast", "--model.patch", "48", *steps_of(350)),
            "ast-20ms": ("asc-ast", "--model.hop-ms", "20"),
            "ast-30ms": ("asc-ast", "--model.hop-ms", "30"),
            "ast-40ms": ("asc-ast", "--model.hop-ms", "40"),
            "flexiast": (
                *("asc-flexiast", "--draws.patches", *map(str, PATCHES)),
                *("--draws.ramp-epochs", "20"),
            ),
            "flexiast-large": ("asc-flexiast",),
            "flexiast-long": (
                *("asc-flexiast", "--draws.patches", *map(str, EVEN)),
                *("--draws.share", "0.85", "--optim.epochs", "100"),
            ),
            "elasticast": ("asc-elasticast",),
            "elasticast-long": (
                *("asc-elasticast", "--draws.share", "0.7"),
                *("--draws.ramp-epochs", "10"),
            ),
            "elasticast-even": (
                *("asc-elasticast", "--draws.hops-ms", *EVEN_HOPS, "--draws.share", "0.85"),
                *("--draws.ramp-epochs", "10", "--optim.epochs", "100"),
            ),
            "melastic": (
                *("asc-melastic", "--model.pooling", "attention"),
                *("--optim.epochs", "80", "--draws.ramp-epochs", "20"),
            ),
        },
        started={
            "flexiast-2": ("ast-16", ("asc-flexiast", *LONGER)),
            "elasticast-2": ("ast-16", ("asc-elasticast", "--model.pooling", "mean", *LONGER)),
            "melastic-2": ("flexiast", ("asc-melastic", *LONGER)),
            "melastic-large-2": (
                "flexiast-large",
                (
                    *("asc-melastic", "--draws.patches", *map(str, MANY_LARGE)),
                    *("--optim.epochs", "30", "--draws.ramp-epochs", "8"),
                ),
            ),
            "melastic-long-2": (
                "flexiast-long",
                (
                    *("asc-melastic", "--draws.patches", *map(str, EVEN)),
                    *("--optim.epochs", "30", "--draws.ramp-epochs", "8"),
                ),
            ),
            "melastic-even-2": (
                "flexiast-long",
                (
                    *("asc-melastic", "--draws.patches", *map(str, EVEN)),
                    *("--draws.hops-ms", *EVEN_HOPS, "--draws.share", "0.6"),
                    *("--optim.epochs", "40", "--draws.ramp-epochs", "8"),
                ),
            ),
        },
        taught={
            "flexiast-taught": (
                FIXED_COLUMNS,
                ("asc-flexiast", "--distill.weight", "0.5", "--optim.epochs", "36"),
            )
        },
        dials={
            "patch": ("8", "10", "12", "16", "20", "24", "30", "32", "40", "48"),
            "hop": HOPS,
        },
        own=View(patch=16, hop_ms=10.0),
        whole=(
            *("flexiast-large", "flexiast-long", "melastic", "melastic-2", "melastic-long-2"),
            "melastic-even-2",
        ),
        dashed={
            "patch": ("ast-16", "ast-32", "flexiast", "flexiast-2"),
            "hop": (
                *("ast-16", "ast-20ms", "ast-40ms"),
                *("elasticast", "elasticast-2", "elasticast-long", "elasticast-even"),
            ),
        },
    ),
    "columns": Family(
        models={
            "aum-3": FIXED_COLUMNS,
            "aum-6": (*FIXED_COLUMNS, "--model.patch", "128x6", *steps_of(1100)),
            "aum-12": (*FIXED_COLUMNS, "--model.patch", "128x12", *steps_of(550)),
            "aum-20ms": (*FIXED_COLUMNS, "--model.hop-ms", "20", *steps_of(1100)),
            "aum-30ms": (*FIXED_COLUMNS, "--model.hop-ms", "30", *steps_of(735)),
            "aum-40ms": (*FIXED_COLUMNS, "--model.hop-ms", "40", *steps_of(550)),
            "melastic-ast": ("asc-melastic-columns",),
            "melastic-aum": ("asc-melastic-aum",),
        },
        started={},
        taught={},
        dials={
            "patch": tuple(f"128x{frames}" for frames in (2, 3, 4, 5, 6, 8, 10, 12)),
            "hop": HOPS,
            "pool": POOLINGS,
            "seconds": ("0.3", "0.4", "0.5", "0.6", "0.8", "all"),
            "keep": SHARES,
        },
        own=View(patch=(128, 3), hop_ms=10.0),
        whole=("melastic-aum",),
        dashed={
            "patch": ("aum-3", "aum-6", "aum-12", "melastic-ast"),
            "hop": ("aum-3", "aum-20ms", "aum-40ms", "melastic-ast"),
            **dict.fromkeys(("pool", "seconds", "keep"), ("aum-3", "melastic-ast")),
        },
    ),
    "sounds": Family(
        models={
            "ast-8": ON_SOUNDS,
            "ast-16": (*ON_SOUNDS, "--model.patch", "128x16", *steps_of(1000)),
            "ast-20ms": (*ON_SOUNDS, "--model.hop-ms", "20", *steps_of(1000)),
            "ast-40ms": (*ON_SOUNDS, "--model.hop-ms", "40", *steps_of(500)),
            "melastic-ast": ("esc50-melastic",),
            "melastic-long": (
                *("esc50-melastic", "--optim.epochs", "340"),
                *("--draws.ramp-epochs", "60"),
            ),
        },
        started={},
        taught={},
        dials={
            "patch": tuple(f"128x{frames}" for frames in (4, 6, 8, 10, 12, 16, 20, 24)),
            "hop": HOPS,
            "pool": POOLINGS,
            "seconds": ("0.5", "1", "1.5", "2.5", "3.5", "all"),
            "keep": SHARES,
        },
        own=View(patch=(128, 8), hop_ms=10.0),
        whole=("melastic-ast", "melastic-long"),
        dashed={
            "patch": ("ast-8", "ast-16"),
            "hop": ("ast-8", "ast-20ms", "ast-40ms"),
            **dict.fromkeys(("pool", "seconds", "keep"), ("ast-8",)),
        },
    ),
    "voices": Family(
        models={
            "ast-2": ON_VOICES,
            "ast-4": (*ON_VOICES, "--model.patch", "64x4", *steps_of(500)),
            "ast-20ms": (*ON_VOICES, "--model.hop-ms", "20", *steps_of(500)),
            "ast-40ms": (*ON_VOICES, "--model.hop-ms", "40", *steps_of(250)),
            "melastic-ast": ("fsdd-loso-melastic",),
        },
        started={},
        taught={},
        dials={
            "patch": tuple(f"64x{frames}" for frames in (1, 2, 3, 4, 6, 8)),
            "hop": HOPS,
            "pool": POOLINGS,
            "seconds": ("0.1", "0.2", "0.35", "0.5", "all"),
            "keep": SHARES,
        },
        own=View(patch=(64, 2), hop_ms=10.0),
        whole=("melastic-ast",),
        dashed={
            "patch": ("ast-2", "ast-4"),
            "hop": ("ast-2", "ast-20ms", "ast-40ms"),
            **dict.fromkeys(("pool", "seconds", "keep"), ("ast-2",)),
        },
    ),
}
"""Patches are squares, as FlexiAST's, or span all mel bins: on keywords, on sounds of up to 5 s,
and on digits of speakers who were never heard."""
