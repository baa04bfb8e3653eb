"""What a trained FeatureNet sees, loaded from the checkpoint that the command line wrote."""

import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml

from lit_vae.features import FeatureNetDistance, FeatureNetFeatures
from lit_vae.images import from_uint8
from lit_vae.models import FeatureNet
from lit_vae.run.loading import load_model

ROOT = Path(__file__).resolve().parents[3]


def fit(folder: Path, config: str, **model: object) -> Path:
    """The best checkpoint of two steps of a configuration on random images."""
    from lit_vae.cli import main

    content = yaml.safe_load((ROOT / "configs" / config).read_text())
    content["model"]["init_args"] |= model
    channels, size, _ = content["model"]["init_args"]["image_shape"]
    images = {"channels": channels, "size": size, "num_classes": 10, "num_train": 8, "num_val": 4, "batch_size": 4}
    content["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": images}
    content["trainer"] = {"max_epochs": 1, "callbacks": [], "logger": False, "enable_progress_bar": False,
                          "enable_model_summary": False, "log_every_n_steps": 1, "accelerator": "cpu"}  # fmt: skip
    folder.mkdir()
    given, run = folder / "given.yaml", folder / "run"
    given.write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(given), "--run_dir", str(run)])
        main()
    return run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("runs") / "grey", "feature_net/digits.yaml")


@pytest.fixture(scope="module")
def colour_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("runs") / "colour", "feature_net/digits.yaml", image_shape=[3, 8, 8])


def test_the_distance_is_the_formula(checkpoint: Path) -> None:
    distance = FeatureNetDistance(str(checkpoint)).double()
    assert distance.name == "lpips_featurenet"
    torch.manual_seed(0)
    x, x_hat = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64) * 2.0 - 1.0
    model = load_model(checkpoint, torch.device("cpu")).double()
    assert isinstance(model, FeatureNet)
    expected = torch.zeros(3, dtype=torch.float64)
    for y, y_hat in zip(model.network.maps(x), model.network.maps(x_hat), strict=True):
        cosine = torch.cosine_similarity(y, y_hat, dim=1, eps=1e-20)
        at_each_place = 2.0 - 2.0 * cosine  # of two unit vectors
        expected += at_each_place.mean((1, 2)) / 3
    torch.testing.assert_close(distance(x, x_hat), expected, rtol=1e-6, atol=0.0)
    with torch.no_grad():
        target = distance.embed(x)
    torch.testing.assert_close(distance.distance(target, x_hat), distance(x, x_hat))
    assert torch.equal(distance(x, x), torch.zeros(3))


def test_the_gradient_goes_to_the_reconstruction_alone(checkpoint: Path) -> None:
    distance = FeatureNetDistance(str(checkpoint)).train()
    x, x_hat = torch.rand(2, 1, 8, 8, requires_grad=True), torch.rand(2, 1, 8, 8, requires_grad=True)
    distance(x, x_hat).sum().backward()
    assert x.grad is None
    assert x_hat.grad is not None
    assert x_hat.grad.abs().max() > 0.0
    assert not list(distance.parameters())
    assert not distance.state_dict()
    blank = torch.zeros(1, 1, 8, 8, requires_grad=True)
    distance(torch.zeros(1, 1, 8, 8), blank).sum().backward()
    assert blank.grad is not None
    assert blank.grad.isfinite().all()


def test_features_are_what_is_classified_by(checkpoint: Path) -> None:
    features = FeatureNetFeatures(str(checkpoint))
    assert features.num_features == 64
    u = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = load_model(checkpoint, torch.device("cpu"))
    assert isinstance(model, FeatureNet)
    torch.testing.assert_close(model.network.classify(features(u)), model.network(from_uint8(u)))
    assert features.called("rfd") == "rfd_featurenet"
    assert features.provenance()["weights_sha256"] == sha256(checkpoint.read_bytes()).hexdigest()
    assert not features.state_dict()
    assert not list(features.parameters())


def test_colours_see_grey_by_repetition_and_not_the_other_way(checkpoint: Path, colour_checkpoint: Path) -> None:
    distance, features = FeatureNetDistance(str(colour_checkpoint)), FeatureNetFeatures(str(colour_checkpoint))
    assert distance.problems((1, 8, 8)) == features.problems((1, 8, 8)) == []
    x, x_hat = torch.rand(2, 2, 1, 8, 8)
    colour, colour_hat = x.repeat(1, 3, 1, 1), x_hat.repeat(1, 3, 1, 1)
    torch.testing.assert_close(distance(x, x_hat), distance(colour, colour_hat))
    u = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(u), features(u.repeat(1, 3, 1, 1)))
    (problem,) = FeatureNetDistance(str(checkpoint)).problems((3, 8, 8))
    assert "FeatureNetDistance: its FeatureNet takes images with 1 channels, but these have 3. Train one" in problem
    (problem,) = FeatureNetFeatures(str(checkpoint)).problems((1, 8, 3))
    assert "FeatureNetFeatures: its FeatureNet needs images of at least 4 x 4 pixels, not 8 x 3. Train one" in problem


def test_a_missing_checkpoint_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    for component in (FeatureNetDistance, FeatureNetFeatures):
        path = str(tmp_path / "best.ckpt")
        (problem,) = component(path).problems((1, 8, 8))
        assert problem.startswith(f"{component.__name__}: checkpoint (={path!r}) must be a .ckpt file of a FeatureNet")
        assert "lightning fit --config configs/feature_net/mnist.yaml --run_dir runs/feature_net/mnist" in problem


def test_a_checkpoint_of_another_model_is_told(tmp_path: Path) -> None:
    path = fit(tmp_path / "vae", "vae/digits.yaml")
    (problem,) = FeatureNetDistance(str(path)).problems((1, 8, 8))
    assert f"checkpoint (={str(path)!r}) must be of a FeatureNet, not of a VAE. Give one that" in problem
