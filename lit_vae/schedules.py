"""Numbers that change during training: ``schedule(step) -> float``, a function of the optimizer step alone.

So nothing has to be saved to resume one. ``final`` is the value once it has run its course: validation uses it, or the
numbers of two epochs would not be comparable.
"""

from abc import ABC, abstractmethod

from lit_vae.ranges import NotNegativeFloat, NotNegativeInt, PositiveInt, PositiveShare, checked


class Schedule(ABC):
    """``step`` (optimizer steps taken, from 0) to a float."""

    final: float

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Value at ``step``."""


class Constant(Schedule):
    """Always ``value``."""

    @checked
    def __init__(self, value: NotNegativeFloat) -> None:
        self.final = value

    def __call__(self, step: int) -> float:
        """``value``."""
        return self.final


class LinearWarmup(Schedule):
    """``start`` until step ``delay``, then linearly to ``end`` in ``steps`` steps, then ``end``.

    KL warm-up as of Bowman et al., "Generating Sentences from a Continuous Space", 2016, sec. 3.1.
    """

    @checked
    def __init__(
        self, steps: PositiveInt, start: NotNegativeFloat = 0.0, end: NotNegativeFloat = 1.0, delay: NotNegativeInt = 0
    ) -> None:
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

    @checked
    def __init__(
        self, period: PositiveInt, cycles: PositiveInt = 4, ramp: PositiveShare = 0.5, end: NotNegativeFloat = 1.0
    ) -> None:
        self.period, self.cycles, self.ramp, self.final = period, cycles, ramp, end

    def __call__(self, step: int) -> float:
        """Value at ``step``."""
        if step >= self.period * self.cycles:
            return self.final
        return self.final * min((step % self.period) / (self.period * self.ramp), 1.0)


def as_schedule(value: float | Schedule) -> Schedule:
    """A number stands for a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(value)
