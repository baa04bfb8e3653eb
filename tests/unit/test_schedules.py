"""Schedules: values by hand, the final value, and that the step is all they know."""

import pytest

from lit_vae.schedules import Constant, Cyclical, LinearWarmup, as_schedule


def test_constant():
    assert [Constant(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3
    assert Constant(0.3).final == 0.3


def test_linear_warmup_with_a_delay():
    schedule = LinearWarmup(steps=4, start=0.2, end=1.0, delay=10)
    assert [schedule(step) for step in (0, 10)] == [0.2, 0.2]
    assert [schedule(step) for step in (11, 12, 13)] == pytest.approx([0.4, 0.6, 0.8], rel=1e-14)
    assert [schedule(step) for step in (14, 15, 10**9)] == [1.0] * 3


def test_linear_warmup_may_fall():
    schedule = LinearWarmup(steps=2, start=10.0, end=1.0)
    assert [schedule(step) for step in range(4)] == [10.0, 5.5, 1.0, 1.0]


def test_cyclical_is_that_of_fu_et_al():
    """Eq. 6 with R = 0.5: a rise over half of each cycle, a plateau over the other, and the end for good."""
    schedule = Cyclical(period=8, cycles=2, ramp=0.5, end=2.0)
    cycle = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    assert [schedule(step) for step in range(20)] == pytest.approx(cycle + cycle + [2.0] * 4, rel=1e-14)


def test_cyclical_with_a_ramp_over_the_whole_period():
    schedule = Cyclical(period=4, cycles=1, ramp=1.0)
    assert [schedule(step) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("schedule", [Constant(0.5), LinearWarmup(7, 0.1, 0.9, 3), Cyclical(5, 3, 0.4, 1.5)])
def test_final_is_the_value_from_some_step_on_and_calls_leave_no_trace(schedule):
    once = [schedule(step) for step in range(30)]
    assert once[20:] == [schedule.final] * 10
    assert [schedule(step) for step in reversed(range(30))] == once[::-1]  # a resumed run sees the same


def test_a_number_stands_for_a_constant():
    assert as_schedule(4)(123) == 4
    schedule = LinearWarmup(3)
    assert as_schedule(schedule) is schedule


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LinearWarmup(0), "LinearWarmup: steps (=0) must be at least 1."),
        (
            lambda: Cyclical(0),
            "Cyclical: period (=0) must be at least 1.",
        ),
        (
            lambda: Cyclical(5, cycles=0),
            "Cyclical: cycles (=0) must be at least 1.",
        ),
        (
            lambda: Cyclical(5, ramp=0.0),
            "Cyclical: ramp (=0.0) must be greater than 0 and at most 1.",
        ),
    ],
)
def test_wrong_arguments(make, text):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == text
