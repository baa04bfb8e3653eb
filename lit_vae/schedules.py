"""Numbers that change during training: ``schedule(step) -> float``.

They depend on the optimizer step only, so checkpoints need not save them. Validation uses the ``final`` value, so that
its numbers are comparable between epochs.
"""

from abc import ABC, abstractmethod

from lit_vae.ranges import NotNegativeFloat, NotNegativeInt, PositiveInt, PositiveShare, checked


class Schedule(ABC):
    """Maps ``step`` (optimizer steps taken, from 0) to a float."""

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

    KL warm-up of Bowman et al., "Generating Sentences from a Continuous Space", 2016, sec. 3.1.
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
    """``cycles`` periods: a linear rise from 0 to ``end`` over the share ``ramp`` of a ``period``, then ``end``.

    After the last period it stays at ``end``.
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
    """The schedule itself, or a constant schedule for a number."""
    return value if isinstance(value, Schedule) else Constant(value)
