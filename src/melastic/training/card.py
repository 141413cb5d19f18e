"""Model cards: what a model was trained on, how well it does, and how to make it again."""

from collections.abc import Mapping
from typing import Any

from melastic.classifier import Classifier
from melastic.evaluation.cost import gmacs_per_second
from melastic.training.config import TrainConfig
from melastic.training.setup import Splits


def model_card(
    model: Classifier, config: TrainConfig, splits: Splits, row: Mapping[str, Any]
) -> str:
    """Markdown for the model folder.

    Args:
        model: the trained model.
        config: the run's settings.
        splits: its clips.
        row: its last measurements, with ``val`` and ``test`` where they were made.
    """
    frontend, patches = model.config.frontend, model.config.patches
    lines = [
        "---",
        "library_name: melastic",
        "pipeline_tag: audio-classification",
        "---",
        "",
        f"# {config.name}",
        "",
        *_said(config, splits),
        "",
        f"- {model.num_parameters:,} parameters ({model.config.name}), "
        f"{gmacs_per_second(model.config):.3f} GMACs for a second of audio",
        f"- log-mels: {frontend.num_mels} bins, every {frontend.hop_ms:g} ms, at "
        f"{frontend.sample_rate} Hz; patches {patches.patch.freq} x {patches.patch.time}",
        f"- trained on {len(splits.train)} clips, seed {config.run.seed}",
    ]
    for key, name in (("val", "held-out"), ("test", "test")):
        if key in row:
            scores = row[key]
            mean = f", mAP {100 * scores['mAP']:.2f} %" if "mAP" in scores else ""
            lines.append(
                f"- {name} clips: accuracy {100 * scores['accuracy']:.2f} %{mean} "
                f"({scores['clips']} clips)"
            )
    classes = ["", f"Classes: {', '.join(splits.labels)}"] if splits.labels else []
    return "\n".join([*lines, *classes, ""])


def _said(config: TrainConfig, splits: Splits) -> list[str]:
    """What the model is."""
    if splits.labels:
        made = f"made by `melastic train {config.name}`"
        return [f"An audio classifier with {len(splits.labels)} classes, {made}."]
    return [
        "An encoder of sounds without a head, trained to predict hidden patches of clips without "
        f"labels by `melastic pretrain {config.name}`; accuracy is the share of hidden patches "
        "that it tells apart. A start for training: `melastic train RECIPE --init FOLDER`.",
    ]
