"""Stages of a training: parts, such as masking or mining, that begin in a later epoch.

A method or callback with such a part lists it in its attribute `stages`. Only epochs in which every
stage has full strength may become best.ckpt.
"""

import math
from collections.abc import Iterable
from typing import Any

from maskclr_pl.types import InputError


class Stage:
    """A part of a training that begins in some epoch.

    Args:
        name: Name in logs and figures (`masking`).
        key: Setting of `start` (`masking.start_epoch`).
        start: First epoch, from 0; between 0 and 1 a share of the training.
        ramp: Epochs until full strength, or a share of the training.
        ramp_key: Setting of `ramp`.

    Raises:
        ValueError: If a number is negative, or above 1 and not whole.
    """

    def __init__(self, name: str, key: str, start: float, ramp: float = 0, ramp_key: str = ""):
        for setting, value in ((key, start), (ramp_key, ramp)):
            if not value >= 0:
                raise ValueError(f"{setting.split('.')[-1]} must not be negative, got {value}")
            if value > 1 and value != int(value):
                raise ValueError(
                    f"{setting.split('.')[-1]} must be a whole number, or a share of the training "
                    f"between 0 and 1, got {value}"
                )
        self.name, self.key, self.start = name, key, start
        self.ramp, self.ramp_key = ramp, ramp_key
        self._epochs: int | None = None

    def resolve(self, epochs: int) -> None:
        """Turn shares of a training of `epochs` epochs into epochs.

        Only the first call has an effect, so that a resumed run keeps its stages.
        """
        if self._epochs is None:
            self._epochs = max(0, epochs)

    @property
    def first(self) -> int:
        """First epoch of the stage, from 0."""
        return self._epoch(self.start)

    @property
    def full(self) -> int:
        """First epoch at full strength, from 0."""
        return self.first + self._epoch(self.ramp)

    def _epoch(self, value: float) -> int:
        if not 0 < value < 1:
            return int(value)
        if self._epochs is None:
            raise RuntimeError(f"{self.key}: {value} is a share; call resolve() first")
        return int(value * self._epochs)


def collect_stages(components: Iterable[Any]) -> list[Stage]:
    """Collect the stages of methods and callbacks."""
    return [stage for component in components for stage in getattr(component, "stages", ())]


def planned_epochs(
    max_epochs: int | None, max_steps: int, batches: float, accumulate: int = 1
) -> int:
    """Return the number of epochs until `max_epochs` or `max_steps`, whichever is first.

    Args:
        max_epochs: None or -1: no limit.
        max_steps: Optimizer steps; -1: no limit.
        batches: Training batches per epoch.
        accumulate: Batches per step.

    Raises:
        InputError: If there is no limit, or it allows no step.
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
    """Raise InputError for a stage that would never begin or reach full strength.

    Args:
        stages: Resolved stages.
        epochs: Epochs of the training.
        limit: Setting that limits the training, for the message: `trainer.max_epochs=4`.

    Raises:
        InputError: See above.
    """
    for stage in stages:
        if stage.first >= epochs:
            raise InputError(
                f"{stage.key}={stage.start:g} but {limit}: {stage.name} would never begin; pass "
                f"{stage.key}=0.5 (a share of the training), or train for more epochs"
            )
        if stage.full >= epochs:
            raise InputError(
                f"{stage.ramp_key}={stage.ramp:g} but {limit}: {stage.name} begins in epoch "
                f"{stage.first + 1} and would never reach full strength; pass "
                f"{stage.ramp_key}={epochs - 1 - stage.first} or less, or train for more epochs"
            )
