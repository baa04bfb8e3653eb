"""Two ranks of batches of B train every family as one process does with batches of 2 B: weights and numbers."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from fake_configs import ROOT, Lightning, narrowed, on_fake_data
from lightning.pytorch import Callback, LightningModule, Trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),  # nothing is left running here
    pytest.mark.filterwarnings("ignore:Grad strides do not match"),  # of a convolution of one channel, on a processor
]

BATCHES = {"one": 6, "two": 3}
TWO_RANKS = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp_fork", "--trainer.devices=2"]
DOUBLE = ["--trainer.precision=64-true"]
ADVERSARY = "--model.init_args.realism.init_args.adversary.init_args"
WARMUP = {"class_path": "lit_vae.schedules.LinearWarmup", "init_args": {"steps": 1, "end": 0.5, "delay": 4}}
LATE = [f"{ADVERSARY}.start_step=3", f"{ADVERSARY}.weight={json.dumps(WARMUP)}"]
"""A discriminator that learns from step 3 on, and is felt from step 4."""

FAMILIES = [
    "ae/digits",
    "vae/digits",
    "vqvae/digits",
    "kl_autoencoder/digits",
    "prior/digits",
    "study/pca",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "vae/mnist_binary_dreg5",
            "cvae/digits",
            "vqvae/digits_gradient",
            "vqvae2/cifar10",
            "feature_net/digits",
            "vae/mnist_binary_iwae5",
            "vae/mnist_binary_vamp",
            "vqvae/digits_cosine",
            "vqvae/digits_fsq",
            "vqvae/digits_lfq",
            "pixelcnn/mnist_binary",
            "pixelvae/mnist_binary",
            "pixelvae/mnist_two_grids",
            "prior/mnist_transformer",
            "diffusion/digits",
            "latent_diffusion/mnist",
            "diffusability/mnist/equivariant",
            "compare/bsds/perceptual_gan",
        )
    ),
]


class RanksAgree(Callback):
    """At the end of training every rank has the same weights and buffers, bit by bit, and random numbers of its own."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the first rank, from which nothing was copied."""
        assert not trainer.strategy.model.broadcast_buffers
        state = {name: value for name, value in pl_module.state_dict().items() if "epoch_means" not in name}
        mine = [state, torch.random.get_rng_state()]
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, mine)
        for name, value in every[0][0].items():
            assert torch.equal(value, state[name]), name
        assert trainer.global_rank == 0 or not torch.equal(every[0][1], mine[1])


def prepared(name: str, tmp_path: Path, lightning: Lightning, feature_net: Path, **trainer: Any) -> Path:
    """Write the configuration with small networks on a few fake images, without what draws numbers within networks."""
    path = on_fake_data(ROOT / "configs" / f"{name}.yaml", tmp_path, lightning, feature_net)
    config = without_drawing_networks(yaml.safe_load(path.read_text()))
    config["model"] = narrowed(config["model"])
    config["data"]["init_args"].pop("batch_size")
    config["trainer"].update({"callbacks": [], "max_epochs": 2, **trainer})
    prepared = tmp_path / "prepared.yaml"
    prepared.write_text(yaml.safe_dump(config))
    return prepared


def without_drawing_networks(config: Any) -> Any:
    """Dropout and augmentations draw from each rank's own generator."""
    if isinstance(config, list):
        return [without_drawing_networks(part) for part in config]
    if not isinstance(config, dict):
        return config
    drawing = {"dropout": 0.0, "augmentation": None, "augmentations": []}
    return {key: drawing.get(key, without_drawing_networks(part)) for key, part in config.items()}


def both_ways(config: Path, tmp_path: Path, lightning: Lightning, *args: str) -> tuple[dict[str, Any], dict[str, Any]]:
    for run, batch in BATCHES.items():
        ranks = [*TWO_RANKS, "--trainer.callbacks+=test_ranks_equal_one.RanksAgree"] if run == "two" else []
        given = ["--config", config, "--run_dir", tmp_path / run, f"--data.init_args.batch_size={batch}"]
        lightning("fit", *given, *ranks, *args)
    first, second = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("one", "two")
    )
    assert first["global_step"] == second["global_step"]
    return first["state_dict"], second["state_dict"]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_close(one: dict[str, Any], two: dict[str, Any], bound: float) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=bound, atol=bound, msg=lambda text, n=name: f"{n}: {text}")


def assert_same_numbers(tmp_path: Path, bound: float) -> None:
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) > 1
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert (a[name] == "") == (b[name] == ""), name
            if a[name]:
                assert math.isclose(float(a[name]), float(b[name]), rel_tol=bound, abs_tol=bound), (name, a, b)


@pytest.mark.parametrize("name", FAMILIES)
def test_two_ranks_of_half_a_batch_are_one_process(
    name: str, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    """In float64, where nothing but an error is larger than rounding: a GAN and Adam make much of that."""
    config = prepared(name, tmp_path, lightning, feature_net)
    assert_close(*both_ways(config, tmp_path, lightning, *DOUBLE), bound=1e-8)
    assert_same_numbers(tmp_path, bound=1e-6)  # means of epochs are logged in float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae/digits", "vqvae/digits"])
def test_two_ranks_are_one_process_in_float32(
    name: str, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    config = prepared(name, tmp_path, lightning, feature_net)
    # Adam divides a gradient by its size: where it is zero but for rounding, it would make a whole step of that
    eps = "--model.init_args.optimizer.init_args.eps=1e-3"
    assert_close(*both_ways(config, tmp_path, lightning, eps), bound=1e-6)
    assert_same_numbers(tmp_path, bound=1e-5)


@pytest.mark.parametrize("name", ["vae/digits", "vqvae/digits"])
def test_two_ranks_are_one_process_with_accumulated_gradients(
    name: str, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    config = prepared(name, tmp_path, lightning, feature_net, accumulate_grad_batches=2)
    assert_close(*both_ways(config, tmp_path, lightning, *DOUBLE), bound=1e-8)


def test_batches_that_accumulate_log_what_one_batch_does(
    lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    """Of a family without noise: there two batches of half the size are one."""
    config = prepared("ae/digits", tmp_path, lightning, feature_net)
    for run, batch, accumulated in (("one", BATCHES["one"], 1), ("two", BATCHES["two"], 2)):
        given = [f"--data.init_args.batch_size={batch}", f"--trainer.accumulate_grad_batches={accumulated}"]
        lightning("fit", "--config", config, "--run_dir", tmp_path / run, *given, *DOUBLE)
    assert_same_numbers(tmp_path, bound=1e-6)


@pytest.mark.slow
def test_two_ranks_are_one_process_when_the_game_starts_late(
    lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    """A discriminator without gradients, at first, waits for nobody."""
    config = prepared("kl_autoencoder/digits", tmp_path, lightning, feature_net)
    assert_close(*both_ways(config, tmp_path, lightning, *DOUBLE, *LATE), bound=1e-8)


@pytest.mark.parametrize(
    ("name", "given"), [pytest.param("kl_autoencoder/digits", LATE, marks=pytest.mark.slow), ("vqvae/digits", [])]
)
def test_two_ranks_are_one_process_with_the_overlay_ddp(
    name: str, given: list[str], lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    """Gradients are views of what is sent, also where they are left out at first."""
    config = prepared(name, tmp_path, lightning, feature_net)
    overlay = yaml.safe_load((ROOT / "configs" / "overlays" / "ddp.yaml").read_text())["trainer"]["strategy"]
    overlay["init_args"]["start_method"] = "fork"
    strategy = f"--trainer.strategy={json.dumps(overlay)}"
    assert_close(*both_ways(config, tmp_path, lightning, *DOUBLE, *given, strategy), bound=1e-8)


@pytest.mark.slow
def test_two_ranks_agree_in_half_precision(lightning: Lightning, feature_net: Path, tmp_path: Path) -> None:
    """Their losses are those of one process to the precision of bfloat16."""
    config = prepared("kl_autoencoder/digits", tmp_path, lightning, feature_net)
    both_ways(config, tmp_path, lightning, "--trainer.precision=bf16-mixed")
    one, two = (
        [float(row["train/distortion"]) for row in rows(tmp_path / run) if row["train/distortion"]]
        for run in ("one", "two")
    )
    assert len(one) == 8
    assert two == pytest.approx(one, rel=2**-6)
