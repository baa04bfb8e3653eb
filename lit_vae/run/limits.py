"""Ranges for numbers that torch and Lightning do not check themselves, and the check of a whole configuration."""

from collections.abc import Mapping
from typing import Annotated, Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_vae.ranges import (
    BelowOne,
    NotNegativeFloat,
    NotNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Ranges,
    UnitInterval,
    Within,
    problems_in,
)
from lit_vae.run.checkpoints import BestCheckpoint, LastCheckpoint

MinusOneForAll = Annotated[int, Within(ge=-1)]
NotNegative = Annotated[float, Within(ge=0)]
Positive = Annotated[float, Within(gt=0)]
NumpySeed = Annotated[int, Within(ge=0, le=2**32 - 1)]

FOREIGN_RANGES: Ranges = {
    Trainer: {
        "devices": Annotated[int, Within(ge=-1, le=1024)],
        "num_nodes": Annotated[int, Within(ge=1, le=100_000)],
        "max_epochs": MinusOneForAll,
        "min_epochs": NotNegative,
        "max_steps": MinusOneForAll,
        "min_steps": NotNegative,
        "limit_train_batches": Positive,  # with 0, nothing trains and nothing says so
        "limit_val_batches": NotNegative,
        "limit_test_batches": NotNegative,
        "limit_predict_batches": NotNegative,
        "overfit_batches": NotNegative,
        "val_check_interval": Positive,
        "check_val_every_n_epoch": PositiveInt,
        "num_sanity_val_steps": MinusOneForAll,
        "log_every_n_steps": PositiveInt,
        "accumulate_grad_batches": PositiveInt,
        "gradient_clip_val": NotNegativeFloat,
        "reload_dataloaders_every_n_epochs": NotNegativeInt,
    },
    Optimizer: {
        "lr": NotNegativeFloat,
        "betas": BelowOne,
        "eps": NotNegativeFloat,
        "weight_decay": NotNegativeFloat,
        "momentum": UnitInterval,
        "dampening": UnitInterval,
        "alpha": UnitInterval,
        "rho": UnitInterval,
        "lr_decay": NotNegativeFloat,
        "momentum_decay": NotNegativeFloat,
        "initial_accumulator_value": NotNegativeFloat,
    },
    LRScheduler: {
        "T_max": PositiveInt,
        "T_0": PositiveInt,
        "T_mult": PositiveInt,
        "eta_min": NotNegativeFloat,
        "step_size": PositiveInt,
        "milestones": NotNegativeInt,
        "gamma": PositiveFloat,
        "total_iters": PositiveInt,
        "start_factor": PositiveShare,
        "end_factor": UnitInterval,
        "factor": PositiveShare,
        "power": PositiveFloat,
        "base_lr": NotNegativeFloat,
        "max_lr": PositiveFloat,
        "step_size_up": PositiveInt,
        "step_size_down": PositiveInt,
        "total_steps": PositiveInt,
        "epochs": PositiveInt,
        "steps_per_epoch": PositiveInt,
        "pct_start": UnitInterval,
        "div_factor": PositiveFloat,
        "final_div_factor": PositiveFloat,
        "last_epoch": MinusOneForAll,
    },
    ReduceLROnPlateau: {
        "factor": OpenUnitInterval,
        "patience": NotNegativeInt,
        "cooldown": NotNegativeInt,
        "threshold": NotNegativeFloat,
        "min_lr": NotNegativeFloat,
        "eps": NotNegativeFloat,
    },
    EarlyStopping: {"patience": NotNegativeInt},
    ModelCheckpoint: {
        "save_top_k": MinusOneForAll,
        "every_n_train_steps": NotNegativeInt,
        "every_n_epochs": NotNegativeInt,
    },
}
"""Arguments that classes of torch and Lightning accept unchecked, or refuse without naming the setting."""

SECTIONS = {
    "trainer": Trainer,
    "best_checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "seed_everything": NumpySeed,
}


def check_numbers(config: Mapping[str, Any]) -> None:
    """Check every number of a parsed configuration, before anything is built.

    Raises:
        ValueError: naming each number that is not finite or is out of its range, with its setting.
    """
    problems = problems_in(config, SECTIONS, FOREIGN_RANGES)
    if problems:
        raise ValueError("\n".join(f"{problem} Change {problem.key}." for problem in problems))
