"""Parameter groups, learning-rate schedules and weight averages."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melastic.training.config import OptimConfig

SPARED = ("positions", "class_tokens", "log_decay")
"""Parameters of two axes that multiply no tokens."""


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW, or Adam with coupled decay.

    AdamW decays what multiplies tokens (parameters of two axes or more) except positions, class
    tokens and the decays of a state space; Adam decays everything, as AST does.
    """
    if config.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        spared = any(part in name for part in SPARED)
        (plain if parameter.ndim < 2 or spared else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def learning_rate(config: OptimConfig, step: float, *, total: int, per_epoch: int) -> float:
    """Learning rate of a step: a pure function, so a resumed run needs no state for it.

    Args:
        config: peak, warm-up and schedule.
        step: number of the step, from 0, were all epochs as long as the first.
        total: steps of the run.
        per_epoch: steps of an epoch.
    """
    first, last = config.span
    warmup = min(config.warmup_steps, total) if first == 0 else 0
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "cosine":
        progress = first + (last - first) * (step - warmup) / max(1, total - warmup)
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "step":
        before = first * (total // per_epoch) / (last - first)
        epoch = round(before) + int(step // per_epoch)
        passed = sum(epoch >= milestone for milestone in config.milestones)
        return config.lr * config.decay**passed
    return config.lr


class WeightAverage:
    """The weights that are evaluated and kept."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        """Start from a model's weights."""
        self.config = config
        self.count = 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int) -> None:
        """Follow the model after each step; the memory grows from short to ``ema_decay``."""
        if self.config.average == "ema":
            memory = min(self.config.ema_decay, (1 + step) / (10 + step))
            self._blend(model, 1 - memory)
        elif self.config.average == "none":
            self._blend(model, 1.0)

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Follow the model after each epoch."""
        if self.config.average != "tail":
            return
        first = max(0, self.config.epochs - self.config.tail_epochs)
        self.count = max(1, epoch - first + 1)
        self._blend(model, 1 / self.count)

    def swapped(self, model: nn.Module) -> "_Swap":
        """A context in which the model has the averaged weights."""
        return _Swap(model, self.weights)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    def _blend(self, model: nn.Module, share: float) -> None:
        """Move towards the model's weights."""
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter.detach(), share)


class _Swap:
    """Exchanges a model's weights for others while the context lasts."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.model, self.weights = model, weights
        self.own: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        for name, parameter in self.model.named_parameters():
            self.own[name] = parameter.data
            parameter.data = self.weights[name]

    def __exit__(self, *_: object) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.data = self.own[name]
