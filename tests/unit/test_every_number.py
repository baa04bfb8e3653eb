"""Every number of every component that a configuration can name has a range, and is refused outside of it."""

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, get_args, get_type_hints

import pytest
from lightning.pytorch import Trainer
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

import callbacks
import lit_vae
from lit_vae.ranges import problems_in
from lit_vae.run.limits import FOREIGN_RANGES, SECTIONS

COMPONENTS = (
    "lit_vae.models", "lit_vae.hierarchies", "lit_vae.networks", "lit_vae.objectives", "lit_vae.schedules",
    "lit_vae.likelihoods", "lit_vae.priors", "lit_vae.posteriors", "lit_vae.flows", "lit_vae.quantizers",
    "lit_vae.realism", "lit_vae.features", "lit_vae.metrics.set_distances", "lit_vae.data", "lit_vae.sampling",
    "lit_vae.diffusion", "lit_vae.equivariance", "callbacks",
)  # fmt: skip
GIVEN_BY_THE_MODEL = {
    "in_shape", "out_shape", "out_shapes", "cond_dim", "in_channels", "out_channels", "grid", "spatial_channels",
    "in_grid", "out_grid",
}  # fmt: skip
NO_COMPONENTS = re.compile(
    r"(lit_vae\.)?(data\.(base|decode|loader|orders|pictures|splits|(code|latent|encoded)_files|encoded_module|latents_module\.LatentLoader|downloaded|checks)"
    r"|networks\.(layers|clock|pixelcnn_layers|pixelcnn_cache|autoregressive|tiling)|models\.(with_realism|discrete)\b|models\.vae\.VariationalAutoencoder"
    r"|features\.(lpips|feature_net|inception)\b.*Network|data\.image_folder\.PictureDataModule|models\.base\.Autoencoder|callbacks\.references\.ReferenceStatistics"
    r"|networks\.ldm\.(ResnetBlock|AttentionBlock|Downsample)|networks\.vqvae\.ResidualStack|diffusion\.noise_schedules\.NoiseSchedule)"
)
GIVEN_TO = {
    "ImageFolder": {"value_range"},  # any two numbers in order
    "ResidualFeatures": {"num_classes"},
    **{name: {"shape"} for name in ("GaussianPosterior", "FixedVariance", "FlowPosterior", "UNet", "DiT")},
    **{name: {"latent_shapes"} for name in ("TopDown", "MarkovianBottomUp", "VectorAndMap")},
    **{name: {"num_embeddings", "embedding_dim"} for name in ("Codebook", "EMACodebook", "GradientCodebook")},
}
ZERO_MEANS_SOMETHING = {
    "free_bits", "beta", "distortion_weight", "commitment_cost", "entropy_weight", "label_smoothing", "dropout",
    "decay", "delay", "start", "end", "value", "seed", "temperature", "pad", "num_classes", "num_test", "in_memory_mb",
    "num_workers", "iterations", "start_step", "attention_every", "least", "collapse_threshold",
    "num_images", "weight", "context", "level", "fourier", "eta", "scale", "label_dropout",
}  # fmt: skip
"""Arguments of which some class takes 0."""
ANY_SIGN = {"min_log_scale", "lam_min", "lam_max", "mean", "interval"}
"""Logarithms, of which some class takes a negative one."""

OTHERS = {
    Trainer: (
        "max_steps limit_train_batches val_check_interval check_val_every_n_epoch num_sanity_val_steps"
        " log_every_n_steps accumulate_grad_batches gradient_clip_val overfit_batches devices num_nodes max_epochs"
    ),
    Adam: "lr betas eps weight_decay",
    AdamW: "lr betas eps weight_decay",
    SGD: "lr momentum dampening weight_decay",
    RMSprop: "lr alpha eps momentum",
    CosineAnnealingLR: "T_max eta_min",
    CosineAnnealingWarmRestarts: "T_0 T_mult eta_min",
    ExponentialLR: "gamma",
    StepLR: "step_size gamma",
    MultiStepLR: "milestones gamma",
    LinearLR: "start_factor end_factor total_iters",
    OneCycleLR: "max_lr total_steps epochs steps_per_epoch pct_start div_factor final_div_factor",
}


def classes() -> Iterator[type]:
    for package in (lit_vae, callbacks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.startswith(COMPONENTS) and not NO_COMPONENTS.match(module.name):
                for name, kind in vars(importlib.import_module(module.name)).items():
                    ours = inspect.isclass(kind) and kind.__module__ == module.name and not name.startswith("_")
                    if ours and "__init__" in vars(kind) and not NO_COMPONENTS.match(f"{module.name}.{name}"):
                        yield kind


def is_number(hint: Any) -> bool:
    """Whether there are numbers in an annotation, whatever else."""
    return hint in (int, float) or (
        (getattr(hint, "__origin__", None) is not None or bool(get_args(hint)))
        and any(is_number(part) for part in get_args(hint) if "Callable" not in str(hint))
    )


def numbers() -> Iterator[tuple[type, str, Any]]:
    for kind in [*classes(), SECTIONS["last_checkpoint"]]:
        init = vars(kind)["__init__"]
        for argument, hint in get_type_hints(init, include_extras=True).items():
            if argument not in GIVEN_BY_THE_MODEL and argument not in GIVEN_TO.get(kind.__name__, ()):
                plain = get_type_hints(init)[argument]
                if is_number(plain) and "Callable" not in str(plain) and "dict" not in str(plain):
                    yield kind, argument, hint


OURS = sorted({(kind, argument) for kind, argument, _ in numbers()}, key=str)
ALL = [*OURS, *((kind, argument) for kind, arguments in OTHERS.items() for argument in arguments.split())]


WRAPS: tuple[Callable[[float], Any], ...] = (lambda n: n, lambda n: [n], lambda n: [[n]])


def refused(kind: type, argument: str, value: Any) -> list[str]:
    part = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": {argument: value}}
    return [problem.key for problem in problems_in({"part": part}, {}, FOREIGN_RANGES)]


def test_there_are_as_many_as_there_were():
    assert len(OURS) > 150
    assert {"ELBO", "MLP", "FixedGaussian", "Revival", "R1", "EMA", "Digits", "VAE"} <= {k.__name__ for k, _ in OURS}


@pytest.mark.parametrize(("kind", "argument"), ALL, ids=lambda part: getattr(part, "__name__", part))
def test_a_number_that_cannot_be_meant_is_refused_with_its_key(kind, argument):
    inside = next(wrap for wrap in WRAPS if refused(kind, argument, wrap(-(10**9))))
    for number in (math.nan, math.inf, -math.inf):
        (key,) = refused(kind, argument, inside(number))
        assert key.removesuffix(".0").removesuffix(".0") == f"part.init_args.{argument}"
    hint = None
    with suppress(NameError):  # MultiStepLR's, which only a type checker can read
        hint = get_type_hints(vars(kind)["__init__"]).get(argument)
    by_default = inspect.signature(kind).parameters[argument].default is None
    assert bool(refused(kind, argument, None)) == (hint in (int, float) and not by_default)
    assert refused(kind, argument, inside(-2)) or argument in ANY_SIGN
    if kind not in OTHERS:
        assert refused(kind, argument, inside(-1)) or argument in ANY_SIGN
        assert refused(kind, argument, inside(0)) or argument in ZERO_MEANS_SOMETHING | ANY_SIGN
        whole = "int" in str(get_type_hints(vars(kind)["__init__"])[argument])
        assert refused(kind, argument, inside(10**12)) or not whole or argument == "seed"


def test_every_constructor_with_ranges_is_held_to_them():
    unchecked = {kind.__name__ for kind, _ in OURS if not hasattr(vars(kind)["__init__"], "__wrapped__")}
    assert unchecked == {"CodeSampling"}  # a dataclass, which checks itself
