"""Stages of a training: how many epochs it has, and from which of them each stage runs in full.

A method or a callback that does its main work from some epoch on only (masking, mining) lists its
stages in an attribute `stages`. Everything that depends on them asks here: which epochs may become
best.ckpt, whether a stage begins at all, what a continued run keeps.
"""

import math
from collections.abc import Iterable
from typing import Any

from maskclr_pl.types import InputError


class Stage:
    """A part of a training that begins in some epoch.

    Args:
        name: What begins, for logs and figures (`masking`).
        key: The setting that says when (`masking.start_epoch`).
        start: Its first epoch, from 0; between 0 and 1 a share of the epochs of the training.
        ramp: Epochs over which it grows to full strength.
        ramp_key: The setting of `ramp`.

    Raises:
        ValueError: If an epoch is negative, or is no whole number and no share either.
    """

    def __init__(self, name: str, key: str, start: float, ramp: int = 0, ramp_key: str = ""):
        setting, ramp_setting = key.split(".")[-1], ramp_key.split(".")[-1]
        if not start >= 0 or not ramp >= 0:
            raise ValueError(
                f"{setting if not start >= 0 else ramp_setting} must not be negative, got "
                f"{start if not start >= 0 else ramp}"
            )
        if start >= 1 and start != int(start):
            raise ValueError(
                f"{setting} must be a whole number, or a share of the training between 0 and 1, "
                f"got {start}"
            )
        self.name, self.key, self.start = name, key, start
        self.ramp, self.ramp_key = ramp, ramp_key
        self._first: int | None = None if 0 < start < 1 else int(start)

    def settle(self, epochs: int) -> None:
        """Turn a share into an epoch. The first call counts: a continued run keeps its epoch.

        Args:
            epochs: Epochs of the training that the share is a share of.
        """
        if self._first is None:
            self._first = int(self.start * max(0, epochs))

    @property
    def first(self) -> int:
        """First epoch of the stage, from 0."""
        if self._first is None:
            raise RuntimeError(f"{self.key}={self.start} is a share; settle it first")
        return self._first

    @property
    def full(self) -> int:
        """First epoch in which it has full strength, from 0."""
        return self.first + self.ramp


def stages_of(parts: Iterable[Any]) -> list[Stage]:
    """The stages of methods and callbacks."""
    return [stage for part in parts for stage in getattr(part, "stages", ())]


def planned_epochs(
    max_epochs: int | None, max_steps: int, batches: float, accumulate: int = 1
) -> int:
    """Epochs of a training that ends with `max_epochs` or `max_steps`, whichever is first.

    Args:
        max_epochs: None or -1: no limit.
        max_steps: Steps of the optimizer; -1: no limit.
        batches: Training batches of an epoch.
        accumulate: Batches of a step.

    Raises:
        InputError: If there is no limit, or it leaves nothing to train.
    """
    epochs = None if max_epochs in (None, -1) else max_epochs
    if epochs is None and max_steps < 0:
        shown = "null" if max_epochs is None else max_epochs
        raise InputError(
            f"trainer.max_epochs={shown} without trainer.max_steps: learning rate and stages need "
            "to know where the training ends; pass trainer.max_epochs=..."
        )
    if epochs is not None and epochs < 1:
        raise InputError(f"trainer.max_epochs={epochs}: expected a whole number from 1")
    if max_steps == 0 or max_steps < -1:
        raise InputError(f"trainer.max_steps={max_steps}: expected a whole number from 1")
    by_steps = math.ceil(max_steps / max(1, math.ceil(batches / accumulate)))
    if epochs is None:
        return by_steps
    return epochs if max_steps < 0 else min(epochs, by_steps)


def check_stages(stages: Iterable[Stage], epochs: int, limit: str) -> None:
    """Refuse a stage that would never begin, or never run in full.

    Args:
        stages: Settled ones.
        epochs: Of the training.
        limit: The setting that says so, for the message: `trainer.max_epochs=4`.

    Raises:
        InputError: With both numbers.
    """
    for stage in stages:
        if stage.first >= epochs:
            raise InputError(
                f"{stage.key}={stage.start:g} but {limit}: {stage.name} would never begin; pass "
                f"{stage.key}=0.5 (a share of the training), or train for more epochs"
            )
        if stage.full >= epochs:
            raise InputError(
                f"{stage.ramp_key}={stage.ramp} but {limit}: {stage.name} begins in epoch "
                f"{stage.first + 1} and would never reach full strength; pass "
                f"{stage.ramp_key}={epochs - 1 - stage.first} or less, or train for more epochs"
            )
