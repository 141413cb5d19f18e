"""Make the weights that ship with the package from finished runs.

Usage: ``python tools/bundle_weights.py digits=runs/fsdd keywords-ar=runs/asc …``

Each run is the one that the model's card names. Weights are stored in 16 bits, and the scores on
the card are those of the stored weights, measured on the run's test clips.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from melastic.checkpoints.store import BUNDLED, load_folder, save
from melastic.data.manifest import read_manifest, select
from melastic.evaluation.evaluate import evaluate
from melastic.training.run_folder import MODEL, read_run_config


@dataclass(frozen=True)
class Source:
    """What a bundled model was trained on."""

    summary: str
    data: str
    licence: str
    commands: tuple[str, ...]


SOURCES = {
    "digits": Source(
        summary="Spoken English digits, six speakers, official split.",
        data="Free Spoken Digit Dataset (Z. Jackson and others, "
        "https://github.com/Jakobovski/free-spoken-digit-dataset), CC BY-SA 4.0",
        licence="cc-by-sa-4.0",
        commands=(
            "melastic data prepare fsdd --root FSDD --out fsdd.csv",
            "melastic train fsdd --data.manifest fsdd.csv --out runs/fsdd",
        ),
    ),
    "keywords-ar": Source(
        summary="40 Arabic keywords in clips of one second, official speaker-disjoint split; "
        "Audio Mamba, at patches of 20 to 120 ms and frame shifts of 10 to 40 ms, with the "
        "measured prices of 24 views: `melastic classify keywords-ar --gmacs 0.03 CLIP` picks one.",
        data="Arabic Speech Commands v1 (A. Ghandoura, F. Hjabo, O. Al Dakkak, 2021, "
        "https://github.com/abdulkaderghandoura/arabic-speech-commands-dataset), CC BY 4.0",
        licence="cc-by-4.0",
        commands=(
            "melastic data prepare asc --root ASC --out asc.csv",
            "melastic train asc-melastic-aum --data.manifest asc.csv --out runs/melastic \\",
            "    --run.evaluate-every 5",
            "melastic sweep runs/melastic asc.csv --select split=val --out sweep --store \\",
            "    --patch 128x2 128x3 128x4 128x6 128x8 128x12 --hop-ms 10 15 20 30",
        ),
    ),
    "sounds-10": Source(
        summary="Ten environmental sounds; folds 2-5 for training, fold 1 for the test.",
        data="ESC-10, the CC BY 3.0 part of ESC-50 (K. J. Piczak, ESC: Dataset for Environmental "
        "Sound Classification, ACM Multimedia 2015, https://github.com/karolpiczak/ESC-50; clips "
        "from freesound.org, attribution of each clip in that repository)",
        licence="cc-by-3.0",
        commands=(
            "melastic data prepare esc50 --root ESC50 --out esc50.csv --trim-silence",
            "melastic train esc10 --data.manifest esc50.csv --out runs/esc10",
        ),
    ),
}


def bundle(name: str, run: Path) -> None:
    """Write ``src/melastic/weights/NAME``."""
    source, config = SOURCES[name], read_run_config(run)
    model = load_folder(run / MODEL)
    model.config = replace(model.config, name=name)
    folder = BUNDLED / name
    save(model, folder, dtype=torch.float16)
    stored = load_folder(folder)
    if config.data.manifest is None or config.data.test is None:
        raise SystemExit(f"{run}: has no test clips to measure the stored weights on")
    clips = select(read_manifest(config.data.manifest), config.data.test)
    scores = evaluate(stored, clips).metrics
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-2])
    parameters = sum(p.numel() for p in stored.parameters())
    commands = "\n".join(source.commands)
    card = f"""---
library_name: melastic
pipeline_tag: audio-classification
license: {source.licence}
---

# {name}

{source.summary}

- trained on: {source.data}. Changes made: log-mel spectrograms, random distortions; the weights
  carry the same licence and attribution.
- {parameters:,} parameters, stored in 16 bits; trained without pretraining in
  {last["elapsed_s"] / 60:.0f} minutes on one core of a shared machine, seed {config.run.seed}
- test accuracy {100 * scores.accuracy:.2f} % ({scores.clips} clips), mAP {100 * scores.mAP:.2f} %
- made by

```
{commands}
```

Limits: it names one of its {len(stored.labels)} classes whatever it hears; recordings unlike
those of the training set are named at random.

Classes: {", ".join(stored.labels)}
"""
    save(model, folder, card=card, dtype=torch.float16)
    sys.stdout.write(f"{name}: accuracy {scores.accuracy:.4f} of the stored weights\n")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        bundle(*(argument.split("=")[0], Path(argument.split("=")[1])))
