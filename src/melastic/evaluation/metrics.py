"""Scores of a classifier: accuracy, mean average precision, area under the ROC curve, d'."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Metrics:
    """Scores over a set of clips; nan where a score is not defined."""

    clips: int
    accuracy: float
    """Share of clips whose likeliest class is one of their labels."""
    mAP: float  # noqa: N815
    """Mean over classes of average precision."""
    auc: float
    """Mean over classes of the area under the ROC curve."""
    d_prime: float
    """Separation in units of deviation that gives this area: sqrt(2) times its normal quantile."""
    loss: float
    """Mean loss, without label smoothing."""

    def __str__(self) -> str:
        """As people read it."""
        return f"accuracy {self.accuracy:.4f}, mAP {self.mAP:.4f}"


def measure_scores(
    logits: Float[Tensor, "clips classes"],
    targets: Float[Tensor, "clips classes"],
    *,
    multi_label: bool,
) -> Metrics:
    """All scores at once.

    Average precision and ROC are those of torchmetrics. Classes without a positive clip count in
    neither mean; those without a negative clip not in the ROC mean.

    Source: d' = sqrt(2) Z(AUC) as in YuanGongND/ast.
    """
    hits = targets.gather(1, logits.argmax(1, keepdim=True)).squeeze(1) > 0.5
    scores = _ranks(logits.double() if multi_label else _log_odds(logits.double()))
    positives = (targets > 0.5).long()
    present, varied = positives.any(0), positives.any(0) & (positives == 0).any(0)
    auc = _auc(scores[:, varied], positives[:, varied])
    return Metrics(
        clips=len(logits),
        accuracy=hits.double().mean().item(),
        mAP=_average_precision(scores[:, present], positives[:, present]),
        auc=auc,
        d_prime=math.sqrt(2) * NormalDist().inv_cdf(auc) if 0 < auc < 1 else math.nan,
        loss=loss_of(logits, targets, binary=multi_label).mean().item(),
    )


def loss_of(
    logits: Float[Tensor, "clips classes"],
    targets: Float[Tensor, "clips classes"],
    *,
    binary: bool,
    smoothing: float = 0.0,
) -> Float[Tensor, " clips"]:
    """Loss of each clip.

    Args:
        logits: output of the model.
        targets: share of each class.
        binary: binary cross-entropy, the mean over classes; else cross-entropy.
        smoothing: share of the target that is spread over all classes (cross-entropy).
    """
    if binary:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(
            1
        )
    return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


def confusion(
    logits: Float[Tensor, "clips classes"], targets: Float[Tensor, "clips classes"]
) -> Int[Tensor, "classes classes"]:
    """Clips of each true class (row) that were taken for each class (column)."""
    classes = logits.shape[1]
    pairs = targets.argmax(1) * classes + logits.argmax(1)
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _log_odds(logits: Float[Tensor, "clips classes"]) -> Float[Tensor, "clips classes"]:
    """Log-odds of softmax's shares, which have an order where the shares are all 1."""
    log_shares = logits.log_softmax(1)
    odds = log_shares - torch.log1p(-log_shares.exp().clamp_max(0.75))
    first = logits.argmax(1, keepdim=True)  # all others have half at most
    others = logits.scatter(1, first, -math.inf).logsumexp(1, keepdim=True)
    return odds.scatter(1, first, logits.gather(1, first) - others)


def _ranks(scores: Float[Tensor, "clips classes"]) -> Float[Tensor, "clips classes"]:
    """The same order, and the same ties, between 0 and 1."""
    values, places = scores.unique(return_inverse=True)
    return places.double() / len(values)


def _average_precision(
    scores: Float[Tensor, "clips classes"], positives: Int[Tensor, "clips classes"]
) -> float:
    from torchmetrics.functional.classification import multilabel_average_precision

    if positives.shape[1] == 0:
        return math.nan
    if positives.shape[1] == 1:
        from torchmetrics.functional.classification import binary_average_precision

        return binary_average_precision(scores[:, 0], positives[:, 0]).item()
    return multilabel_average_precision(scores, positives, positives.shape[1]).item()


def _auc(scores: Float[Tensor, "clips classes"], positives: Int[Tensor, "clips classes"]) -> float:
    from torchmetrics.functional.classification import multilabel_auroc

    if positives.shape[1] == 0:
        return math.nan
    if positives.shape[1] == 1:
        from torchmetrics.functional.classification import binary_auroc

        return binary_auroc(scores[:, 0], positives[:, 0]).item()
    return multilabel_auroc(scores, positives, positives.shape[1]).item()
