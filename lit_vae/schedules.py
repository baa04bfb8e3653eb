"""Numbers that change during training: ``schedule(step) -> float``, a function of the optimizer step alone.

So nothing has to be saved to resume one. ``final`` is the value once it has run its course: validation uses it, or the
numbers of two epochs would not be comparable.
"""

from abc import ABC, abstractmethod


class Schedule(ABC):
    """``step`` (optimizer steps taken, from 0) to a float."""

    final: float

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Value at ``step``."""


class Constant(Schedule):
    """Always ``value``."""

    def __init__(self, value: float) -> None:
        self.final = value

    def __call__(self, step: int) -> float:
        """``value``."""
        return self.final


class LinearWarmup(Schedule):
    """``start`` until step ``delay``, then linearly to ``end`` in ``steps`` steps, then ``end``.

    KL warm-up as of Bowman et al., "Generating Sentences from a Continuous Space", 2016, sec. 3.1.
    """

    def __init__(self, steps: int, start: float = 0.0, end: float = 1.0, delay: int = 0) -> None:
        if steps < 1:
            raise ValueError(f"LinearWarmup: steps (={steps}) must be at least 1.")
        self.steps, self.start, self.final, self.delay = steps, start, end, delay

    def __call__(self, step: int) -> float:
        """Value at ``step``."""
        progress = min(max((step - self.delay) / self.steps, 0.0), 1.0)
        return self.start + (self.final - self.start) * progress


class Cyclical(Schedule):
    """``cycles`` times a linear rise from 0 to ``end`` over ``ramp`` of a ``period``, then ``end`` for its rest.

    After the last cycle it stays at ``end``.
    Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing", 2019, eq. 6.
    """

    def __init__(self, period: int, cycles: int = 4, ramp: float = 0.5, end: float = 1.0) -> None:
        if period < 1 or cycles < 1 or not 0.0 < ramp <= 1.0:
            raise ValueError(
                f"Cyclical: period (={period}) and cycles (={cycles}) must be at least 1, ramp (={ramp}) in (0, 1]."
            )
        self.period, self.cycles, self.ramp, self.final = period, cycles, ramp, end

    def __call__(self, step: int) -> float:
        """Value at ``step``."""
        if step >= self.period * self.cycles:
            return self.final
        return self.final * min((step % self.period) / (self.period * self.ramp), 1.0)


def as_schedule(value: float | Schedule) -> Schedule:
    """A number stands for a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(value)
