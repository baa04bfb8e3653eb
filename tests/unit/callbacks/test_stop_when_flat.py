"""Training ends at the first validation after which the last part of the run has gained too little."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from callbacks import StopWhenFlat


def trainer(step: int, value: float, fn: str = TrainerFn.FITTING, sanity: bool = False) -> Any:
    metrics = {"val/psnr": torch.tensor(value, dtype=torch.float64)}
    return SimpleNamespace(
        global_step=step,
        callback_metrics=metrics,
        state=SimpleNamespace(fn=fn),
        sanity_checking=sanity,
        should_stop=False,
    )


def stopped_at(callback: StopWhenFlat, curve: dict[int, float]) -> int | None:
    for step, value in curve.items():
        at = trainer(step, value)
        callback.on_validation_end(at, None)  # type: ignore[arg-type]
        if at.should_stop:
            return step
    return None


def test_it_compares_with_the_start_of_the_last_tenth() -> None:
    """Linear until 1000, flat afterwards: at 1100 the last tenth began before 1000, at 1200 it begins after it."""
    curve = {step: 0.01 * min(step, 1000) for step in range(100, 3000, 100)}
    assert stopped_at(StopWhenFlat(gain=0.05), curve) == 1200
    assert stopped_at(StopWhenFlat(gain=0.05, share=0.5), curve) == 2000
    # at 1100 it has gained 0.1 since step 990, which lies between two validations
    assert stopped_at(StopWhenFlat(gain=0.11), curve) == 1100


def test_a_fall_ends_training_and_the_first_validation_does_not() -> None:
    assert stopped_at(StopWhenFlat(), {10: 30.0}) is None
    assert stopped_at(StopWhenFlat(), {10: 30.0, 20: 29.0, 30: 40.0}) == 20


def test_neither_the_sanity_check_nor_a_validation_by_itself_counts() -> None:
    callback = StopWhenFlat()
    callback.on_validation_end(trainer(10, 1.0, sanity=True), None)  # type: ignore[arg-type]
    callback.on_validation_end(trainer(10, 1.0, fn=TrainerFn.VALIDATING), None)  # type: ignore[arg-type]
    assert callback.state_dict() == {"seen": []}


def test_a_resumed_run_ends_at_the_same_step() -> None:
    curve = {step: 0.01 * min(step, 1000) for step in range(100, 3000, 100)}
    before, after = StopWhenFlat(), StopWhenFlat()
    assert stopped_at(before, {step: value for step, value in curve.items() if step <= 1100}) is None
    after.load_state_dict(before.state_dict())
    assert stopped_at(after, {step: value for step, value in curve.items() if step > 1100}) == 1200


@pytest.mark.parametrize("wrong", [{"gain": 0.0}, {"share": 1.0}, {"share": 0.0}])
def test_what_could_never_end_or_always_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StopWhenFlat(**wrong)
