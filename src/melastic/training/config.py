"""Everything a training run depends on. Each default stands here once, with its unit."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from melastic.architecture import Architecture
from melastic.errors import InputError, check_range
from melastic.frontend.augment import Augmentation
from melastic.options import several_of
from melastic.patches.grid import freq_time
from melastic.patches.view import View
from melastic.presets import architecture_of
from melastic.training.curriculum import Draws
from melastic.training.masks import Masking
from melastic.training.phases import (
    EXAMPLE,
    Passing,
    Phase,
    check_phases,
    counts_steps,
    phase_text,
    phases_in,
)

PhaseList = Annotated[
    tuple[Phase, ...],
    several_of(phases_in, "OPn[:EPOCHS|:Nsteps|:auto][@LR]|PRESET", phase_text, EXAMPLE),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which clips are trained on, chosen by, and tested on."""

    manifest: Path | None = None
    """CSV or JSON manifest, such as ``melastic data prepare`` writes."""
    train: str = "split=train"
    """Clips to train on: column=value, column=a,b, column!=a, joined by &, or all."""
    val: str | None = None
    """Clips that choose the best epoch; None: the last epoch is kept. Never the test clips."""
    val_share: float = 0.0
    """Share of the training clips that is held out for this, where ``val`` is not given."""
    split_seed: int | None = None
    """Seed by which that share is drawn; None: the run's."""
    test: str | None = "split=test"
    """Clips that the finished model is evaluated on once; None: no such evaluation."""
    balanced: bool = False
    """Draw clips with replacement so that rare labels come as often as frequent ones."""
    workers: int | None = None
    """Threads that prepare batches; None: half as many as cores, or 0 on a CPU that keeps all."""
    cache_mb: int = 4000
    """Most memory for spectrograms that are kept (MB)."""
    max_unreadable: int = 0
    """Clips to train on, held out, and to test on, of each, that may turn out unreadable before the
    run stops; they are listed and left out."""

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        check_range("data", self, ("workers", "cache_mb", "max_unreadable"), 0)
        if not 0 <= self.val_share < 1:
            raise InputError(f"data.val_share is in [0, 1), got {self.val_share}; try 0.1")
        if self.val is not None and self.val_share:
            raise InputError("data.val and data.val_share both name held-out clips; give one")
        if self.val is not None and self.val == self.test:
            raise InputError(
                f"data.val and data.test name the same clips ({self.val}); choosing by the test "
                "clips makes their score meaningless, use data.val_share"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model that is trained."""

    preset: str = "ast-tiny"
    """Name that ``melastic models`` lists."""
    architecture: Annotated[Architecture, tyro.conf.arg(name="")] = Architecture()
    """Sizes and choices of parts; :meth:`of` takes the preset's."""
    task: Literal["auto", "single-label", "multi-label"] = "auto"
    """Whether a clip has one label; auto: multi-label where some clip has several."""
    init: str | None = None
    """Trained model (run, folder or name) that weights and statistics are taken over from; kernel
    and positions are fitted, the head is kept for the same labels. None: random weights."""
    length: Literal["auto", "init", "native"] = "auto"
    """Where ``init`` cuts or pads clips to a fixed length: so does the new model (init), or its
    clips keep their own (native). auto: native in ElasticAST's and melastic's presets."""

    @classmethod
    def of(cls, preset: str, **overrides: Any) -> "ModelChoice":
        """A preset with some fields of its architecture changed."""
        return cls(preset=preset, architecture=architecture_of(preset, **overrides))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights are changed."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW decays weights directly; Adam adds the decay to the gradient, as AST does."""
    lr: float = 1e-3
    """Learning rate at its peak."""
    weight_decay: float = 0.05
    """Decay of matrices; biases, norms, positions and class tokens are not decayed (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square."""
    epochs: int = 30
    """Passes over the training clips."""
    steps: int | None = None
    """Steps of training in place of ``epochs``; the last epoch is cut short. None: epochs."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """Course of the learning rate after warm-up; step: times ``decay`` at ``milestones``."""
    milestones: tuple[int, ...] = ()
    """Epochs at whose end the step schedule decays, counted from the beginning of ``span``'s whole:
    in phases from that of each, unless the schedule is continued."""
    decay: float = 0.5
    """Factor of the step schedule."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    span: tuple[float, float] = (0.0, 1.0)
    """Part of the whole schedule that the run covers; later parts have no warm-up."""
    clip_norm: float | None = 1.0
    """Longest gradient; None: not cut."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes (single-label)."""
    loss: Literal["auto", "cross-entropy", "binary"] = "auto"
    """auto: cross-entropy for one label, binary cross-entropy for several."""
    batch_tokens: int = 4096
    """Most tokens in a step's batch, over all processes."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, to save memory."""
    average: Literal["ema", "tail", "none"] = "ema"
    """Weights that are evaluated and kept: running average, mean over the last epochs, or plain."""
    ema_decay: float = 0.995
    """Memory of the running average, per step."""
    tail_epochs: int = 5
    """Epochs that ``tail`` averages over."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        for name in ("lr", "epochs", "batch_tokens", "accumulate", "tail_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"optim.{name} must be positive, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"optim.steps must be positive, got {self.steps}; None trains epochs")
        check_range("optim", self, ("weight_decay", "warmup_steps"), 0)
        check_range("optim", self, ("decay",), 0, 1)
        if min(self.milestones, default=0) < 0:
            raise InputError(f"optim.milestones are epochs from 0 on, got {self.milestones}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(
                f"optim.clip_norm must be positive, got {self.clip_norm}; None does not cut"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optim.betas are in [0, 1), got {self.betas}; try 0.9 0.999")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.ema_decay < 1:
            raise InputError(
                f"optim.label_smoothing and optim.ema_decay are in [0, 1), got "
                f"{self.label_smoothing} and {self.ema_decay}"
            )
        if not 0 <= self.span[0] < self.span[1] <= 1:
            raise InputError(f"optim.span is a part of the schedule, got {self.span}; try 0 1")

    def is_over(self, epoch: int, step: int) -> bool:
        """Whether nothing remains to be done after so many epochs and steps."""
        return epoch >= self.epochs if self.steps is None else step >= self.steps

    def length_text(self) -> str:
        """How long training is, as people read it."""
        return f"{self.epochs} epochs" if self.steps is None else f"{self.steps} steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Scores of another model, or of the model itself at its own patch size, as targets.

    Source: FlexiViT (arXiv:2212.08013), section 3.6, for a teacher; slimmable networks
        (arXiv:1903.05134) for a model that teaches itself at smaller sizes in the same step.
    """

    teacher: str | None = None
    """Trained model (run, folder or name); None: the model itself, at its own patch size."""
    weight: float = 0.0
    """Share of the teacher's scores in the loss; 0: no distillation."""
    temperature: float = 1.0
    """Divides the logits of both before they become scores."""

    def __post_init__(self) -> None:
        """Refuse shares and temperatures that mean nothing."""
        if not 0 <= self.weight <= 1 or not self.temperature > 0:
            raise InputError(
                f"distill.weight is in [0, 1] and distill.temperature positive, got {self.weight} "
                f"and {self.temperature}; try 0.5 and 1"
            )
        if self.teacher is not None and not self.weight:
            raise InputError(
                f"distill.teacher is {self.teacher} and distill.weight 0, so nothing is learned "
                "from it; try --distill.weight 0.5"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How a run is carried out and recorded."""

    seed: int = 0
    """Seed of every random draw."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Number format of matrix products; weights stay in float32."""
    cpu: bool = False
    """Use the CPU even where there is a GPU."""
    patience: int | None = None
    """Epochs without a better score on the held-out clips before the run ends; None: never."""
    keep: Literal["best", "last"] = "best"
    """Weights that are kept where clips are held out: those of the best epoch, or the last."""
    choose_by: Literal["accuracy", "mAP", "loss"] = "accuracy"
    """Score on the held-out clips that chooses the best epoch."""
    evaluate_every: int = 1
    """Epochs from one evaluation on the held-out clips to the next."""
    save_every_s: float = 30.0
    """Least time between two saved states (s)."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go beside metrics.jsonl."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        check_range("run", self, ("save_every_s",), 0)
        check_range("run", self, ("seed",), -(2**63), 2**63 - 1)
        if self.evaluate_every < 1 or (self.patience is not None and self.patience < 1):
            raise InputError("run.evaluate_every and run.patience are at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A training run."""

    name: str
    """Name of the recipe."""
    data: DataConfig = DataConfig()
    model: ModelChoice = ModelChoice()
    view: View = View()
    """How a clip becomes tokens."""
    draws: Draws = Draws()
    """What of the view is drawn in training."""
    distill: Distillation = Distillation()
    augment: Augmentation = Augmentation()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()
    phases: PhaseList = ()
    """From coarse to fine: training at one time resolution after the other, such as hop4:10 hop2:10
    full:20, whose epochs replace optim.epochs, or hop4:500steps full:900steps; or parts of
    optim.epochs (or optim.steps), equal (hop4 hop2 full), by name (2-phase, 3-phase, gradual,
    3-phase-mean) or as they pay (3-phase:auto). Left out: one."""
    passing: Passing = Passing()

    def __post_init__(self) -> None:
        """Refuse impossible phases, patience without end, and a model that is its own teacher."""
        check_phases(self.phases, self.optim.epochs, self.optim.steps)
        if self.passing.schedule == "continued" and counts_steps(self.phases, self.optim.steps):
            raise InputError(
                "a schedule that continues over phases counts epochs, some have steps; give all "
                "phases epochs, or set passing.schedule to held or anew"
            )
        if self.run.patience is not None and self.data.val is None and not self.data.val_share:
            raise InputError(
                "run.patience waits for a better score on held-out clips, there are none; give "
                "data.val or data.val_share"
            )
        coarse = [phase for phase in self.phases if phase.factor > 1 and phase.operator != "patch"]
        if self.distill.teacher is not None and coarse:
            raise InputError(
                "distill.teacher reads clips at its own frame shift, phases by "
                f"{coarse[0].operator} change it; use phases by patch, or leave one of them out"
            )
        own = freq_time(self.model.architecture.patch)
        others = {freq_time(patch) for patch in self.draws.patches} - {own}
        if self.distill.weight and self.distill.teacher is None and not others:
            raise InputError(
                "a model teaches itself at other patch sizes than its own, none are drawn; give "
                "draws.patches, or distill.teacher"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Masked pretraining: a run that asks for no labels.

    Source: SSAST (arXiv:2110.09784).
    """

    data: DataConfig = DataConfig(test=None)
    masking: Masking = Masking()

    def __post_init__(self) -> None:
        """Refuse what masks and a model without classes cannot do."""
        TrainConfig.__post_init__(self)
        other_patches = self.draws.patches or self.view.patch is not None
        if self.view.keep < 1 or self.draws.keep is not None or other_patches:
            raise InputError(
                "pretraining hides patches of the model's own size and keeps all others; leave "
                "view.keep, view.patch, draws.keep and draws.patches out"
            )
        if self.distill.weight or self.data.test is not None or self.data.balanced:
            raise InputError(
                "pretraining knows no classes; leave distill, data.test and data.balanced out"
            )
        if self.run.choose_by == "mAP":
            raise InputError("pretraining has no mAP; set run.choose_by to loss or accuracy")
