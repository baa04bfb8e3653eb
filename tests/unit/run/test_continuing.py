"""What of a configuration may change when a run goes on: it takes effect and is recorded, or it is refused by name."""

import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import Adam, RMSprop, lr_scheduler

from lit_vae.run.continuing import CONFIG_KEY, Continuation, continuation, replace_optimizer_settings, start

ADVERSARY = {
    "class_path": "lit_vae.realism.Adversary",
    "init_args": {"weight": 0.5, "discriminator": {"init_args": {"weight": 3}}, "optimizer": {"lr": 0.1}},
}
SETTINGS: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "callbacks.Samples"}]},
    "model": {
        "class_path": "lit_vae.models.VAE",
        "init_args": {
            "encoder": {"class_path": "lit_vae.networks.MLP", "init_args": {"hidden": [8]}},
            "objective": {"class_path": "lit_vae.objectives.ELBO", "init_args": {"beta": 1.0}},
            "realism": {"class_path": "lit_vae.realism.Realism", "init_args": {"adversary": ADVERSARY}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}},
            "lr_scheduler": None,
        },
    },
    "data": {"class_path": "lit_vae.data.Digits", "init_args": {"batch_size": 64}},
    "last_checkpoint": {"every_n_steps": None},
}
OF_THE_ADVERSARY = "model.init_args.realism.init_args.adversary.init_args"


def changed(key: str, value: Any) -> dict[str, Any]:
    settings = deepcopy(SETTINGS)
    *path, last = key.split(".")
    at = settings
    for name in path:
        at = at[name]
    at[last] = value
    return settings


def complete(settings: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("no option is new")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"global_step": 44, CONFIG_KEY: start(SETTINGS, "1.0").config, "weights": torch.rand(9)}, path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "restates"),
    [
        ("trainer.max_epochs", 2, False),
        ("trainer.callbacks", [], False),
        ("data.init_args.batch_size", 32, False),
        ("last_checkpoint.every_n_steps", 3, False),
        ("model.init_args.objective.init_args.beta", 4.0, False),
        (f"{OF_THE_ADVERSARY}.weight", 0.1, False),
        (f"{OF_THE_ADVERSARY}.optimizer.lr", 0.2, True),
        ("model.init_args.optimizer.init_args.lr", 0.1, True),
        ("model.init_args.lr_scheduler", {"class_path": "torch.optim.lr_scheduler.StepLR"}, True),
    ],
)
def test_what_takes_effect_is_recorded_with_its_step(checkpoint: Path, key: str, value: Any, restates: bool) -> None:
    run = checkpoint.parent.parent
    going_on = continuation(checkpoint, run, changed(key, value), complete)
    assert going_on.replaces_optimizer == restates
    assert yaml.safe_load(going_on.config) == changed(key, value)
    comments = [line for line in going_on.config.splitlines() if line.startswith("#")]
    assert comments[1] == "# from step 44:"
    assert len(comments) == 3
    assert comments[2].startswith(f"#   {key}")
    going_on.write(run / "config.yaml")
    assert (run / "config.yaml").read_text() == going_on.config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed_everything", 1),
        ("model.class_path", "lit_vae.models.AE"),
        ("model.init_args.encoder.init_args.hidden", [9]),
        ("model.init_args.optimizer.class_path", "torch.optim.SGD"),
        ("model.init_args.realism", None),
        (f"{OF_THE_ADVERSARY}.discriminator.init_args.weight", 4),
    ],
)
def test_what_a_checkpoint_holds_is_refused_by_name(checkpoint: Path, key: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"these settings cannot change .*:\n  {key}.*: .* -> .*\nUndo the change\. Or start "
    ):
        continuation(checkpoint, checkpoint.parent.parent, changed(key, value), complete)


def test_unchanged_the_file_of_a_run_stays_with_its_comments(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    going_on = continuation(checkpoint, run, SETTINGS, complete)
    assert going_on == start(SETTINGS, "1.0")
    noted = "# mine\n" + going_on.config
    (run / "config.yaml").write_text(noted)
    going_on.write(run / "config.yaml")
    assert (run / "config.yaml").read_text() == noted
    (run / "config.yaml").write_text("[")
    going_on.write(run / "config.yaml")
    assert (run / "config.yaml").read_text() == going_on.config


def test_a_history_grows_and_a_fork_names_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    first = continuation(checkpoint, tmp_path / "fork", changed("trainer.max_epochs", 2), complete)
    torch.save({"global_step": 50, CONFIG_KEY: first.config}, checkpoint)
    second = continuation(checkpoint, checkpoint.parent.parent, changed("trainer.max_epochs", 3), complete)
    assert second.config.splitlines()[1:5] == [
        f"# from step 44 of {checkpoint}:",
        "#   trainer.max_epochs: 1 -> 2",
        "# from step 50:",
        "#   trainer.max_epochs: 2 -> 3",
    ]
    unchanged = continuation(checkpoint, tmp_path / "fork", changed("trainer.max_epochs", 2), complete)
    assert unchanged.config.splitlines()[3] == f"# from step 50 of {checkpoint}"


def test_any_seed_is_that_of_the_checkpoint(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    assert continuation(checkpoint, run, changed("seed_everything", True), complete) == start(SETTINGS, "1.0")


def test_an_option_that_is_new_since_is_no_change_at_its_default(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    now = changed("model.init_args.encoder.init_args.new", 1)

    def todays(known: dict[str, Any]) -> dict[str, Any]:
        assert known == SETTINGS  # what is new is left out, to be with_defaults in
        return now

    assert continuation(checkpoint, run, now, todays).changes == ()
    other = changed("model.init_args.encoder.init_args.new", 2)
    with pytest.raises(ValueError, match=r"encoder\.init_args\.new: 1 -> 2"):
        continuation(checkpoint, run, other, todays)


def test_of_an_older_checkpoint_the_file_beside_it_is_asked(checkpoint: Path) -> None:
    run = checkpoint.parent.parent
    torch.save({"global_step": 44}, checkpoint)
    unknown = continuation(checkpoint, run, SETTINGS, complete)
    assert unknown.replaces_optimizer
    assert "# from step 44; its configuration is unknown" in unknown.config
    (run / "config.yaml").write_text(start(SETTINGS, "1.0").config)
    assert continuation(checkpoint, run, changed("trainer.max_epochs", 2), complete).changes == (
        "trainer.max_epochs: 1 -> 2",
    )


# ---- the optimizer and the schedule ----------------------------------------------------------------------------------

SCHEDULES = {
    "none": None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.01),
    "step": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "warm-up": lambda o: lr_scheduler.LinearLR(o, total_iters=10),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=30),
}


class Trained:
    """A weight with an optimizer and a schedule, made as `Model` does."""

    def __init__(self, optimizer: Any, schedule: Any) -> None:
        self.weight = torch.nn.Parameter(torch.ones(1))
        self._optimizer, self._schedule = optimizer, schedule

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer([self.weight])
        if self._schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule(optimizer)}}

    def train(self, steps: int, checkpoint: dict[str, Any] | None = None) -> tuple[list[float], dict[str, Any]]:
        """The learning rates of the steps, and the checkpoint after them."""
        made = self.configure_optimizers()
        optimizer, schedule = made, None
        if isinstance(made, dict):
            optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        if checkpoint is not None:
            optimizer.load_state_dict(checkpoint["optimizer_states"][0])
            for state in checkpoint["lr_schedulers"]:
                schedule.load_state_dict(state)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            self.weight.grad = torch.ones(1)
            optimizer.step()
            if schedule is not None:
                schedule.step()
        schedules = [] if schedule is None else [schedule.state_dict()]
        states = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": schedules}
        return rates, {**deepcopy(states), "global_step": steps}


@pytest.mark.parametrize("before", ["none", "cosine"])
@pytest.mark.parametrize("after", SCHEDULES)
def test_a_changed_schedule_holds_as_if_it_had_been_followed_from_the_start(before: str, after: str) -> None:
    _, checkpoint = Trained(lambda p: Adam(p, lr=0.1), SCHEDULES[before]).train(6)
    new = Trained(lambda p: Adam(p, lr=0.2, betas=(0.5, 0.6), weight_decay=0.3), SCHEDULES[after])
    replace_optimizer_settings(new, checkpoint)  # type: ignore[arg-type]
    (state,) = checkpoint["optimizer_states"]
    assert state["param_groups"][0]["weight_decay"] == 0.3
    assert state["state"][0]["step"] == 6  # the moments stay
    rates, _ = new.train(10, checkpoint)
    expected, _ = Trained(new._optimizer, SCHEDULES[after]).train(16)
    assert rates == expected[6:]
    assert not math.isclose(rates[0], 0.1)


def test_a_schedule_that_waits_for_a_number_starts_anew() -> None:
    _, checkpoint = Trained(lambda p: Adam(p, lr=0.1), None).train(6)
    new = Trained(lambda p: Adam(p, lr=0.2), lr_scheduler.ReduceLROnPlateau)
    replace_optimizer_settings(new, checkpoint)  # type: ignore[arg-type]
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.2
    assert checkpoint["lr_schedulers"][0]["num_bad_epochs"] == 0


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        (Adam, lambda p: Adam(p, amsgrad=True), "Adam: model.optimizer needs max_exp_avg_sq"),
        (RMSprop, lambda p: RMSprop(p, centered=True), "RMSprop: model.optimizer needs grad_avg"),
    ],
)
def test_a_setting_that_needs_what_was_never_kept_is_refused(before: Any, after: Any, missing: str) -> None:
    _, checkpoint = Trained(before, None).train(2)
    with pytest.raises(ValueError, match=missing):
        replace_optimizer_settings(Trained(after, None), checkpoint)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [(), ("trainer.callbacks.0.init_args.patience: 3 -> 9",)])
def test_a_callbacks_state_does_not_overrule_a_changed_setting(changes: tuple[str, ...]) -> None:
    stopping = EarlyStopping("val/loss", patience=9)
    state = {**stopping.state_dict(), "patience": 3, "wait_count": 2}
    checkpoint = {"callbacks": {stopping.state_key: state}}
    Continuation("", changes).apply(SimpleNamespace(), [stopping], checkpoint)  # type: ignore[arg-type]
    assert (state["patience"], state["wait_count"]) == (9 if changes else 3, 2)
