"""From a checkpoint to what wrote it, and to nothing else."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_vae.models import PCA
from lit_vae.models.module import Model
from lit_vae.run.loading import build, class_in, identity, load_model, load_stage1

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_the_commands_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of calls within Lightning


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What the command line would write of a PCA."""
    path = tmp_path / "model.ckpt"
    model = PCA([1, 2, 3], latent_dim=2)
    torch.nn.init.normal_(next(iter(model.parameters())))
    hparams: dict[str, Any] = {"_class_path": "lit_vae.models.PCA", "image_shape": [1, 2, 3], "latent_dim": 2}
    hparams["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    content = {"state_dict": model.state_dict(), "hyper_parameters": hparams, "epoch": 0, "global_step": 0}
    torch.save(content | {"pytorch-lightning_version": "2.6.0", "loops": {}}, path)
    return path


def altered(checkpoint: Path, **hparams: Any) -> Path:
    """A copy whose model is said to be another."""
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"] |= hparams
    path = checkpoint.with_name("altered.ckpt")
    torch.save(content, path)
    return path


def test_a_model_comes_back_as_it_was_in_eval_mode(checkpoint: Path) -> None:
    model = load_model(checkpoint, CPU)
    assert type(model) is PCA
    assert not any(module.training for module in model.modules())
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert saved.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_the_identity_is_that_of_the_bytes(checkpoint: Path) -> None:
    expected = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert identity(checkpoint) == expected
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    assert identity(checkpoint) != expected


def test_stage_1_is_loaded_if_it_is_what_it_was(checkpoint: Path) -> None:
    sha256 = identity(checkpoint)
    assert type(load_stage1(str(checkpoint), sha256, CPU)) is PCA
    with pytest.raises(ValueError) as error:
        load_stage1(str(checkpoint), "0" * 64, CPU)
    assert str(error.value) == (
        f"{checkpoint} is not the checkpoint that the prior was trained on (SHA-256 000000000000...). Restore"
        " the old checkpoint, or encode again and train a new prior."
    )
    checkpoint.unlink()
    with pytest.raises(ValueError) as error:
        load_stage1(str(checkpoint), sha256, CPU)
    assert str(error.value) == (
        f"stage 1 of the prior is missing: {checkpoint}. Restore the checkpoint, or give lit-vae sample --stage1 FILE."
    )


@pytest.mark.parametrize(
    ("class_path", "expected"),
    [
        (None, "does not name its model: lightning fit has not written it."),
        ("lit_vae.nowhere.M", "its model is lit_vae.nowhere.M: No module named 'lit_vae.nowhere'. Install the package"),
        ("lit_vae.models.Nothing", "its model is lit_vae.models.Nothing: module 'lit_vae.models' has no attribute"),
        ("torch.nn.Linear", "its model torch.nn.Linear is not a Model. Give another checkpoint."),
        ("torch.nn.modules.linear.math", "its model (=torch.nn.modules.linear.math) is not a class."),
    ],
)
def test_a_checkpoint_that_names_no_model(checkpoint: Path, class_path: str | None, expected: str) -> None:
    path = altered(checkpoint, _class_path=class_path)
    with pytest.raises(ValueError) as error:
        load_model(path, CPU)
    assert f"{path}" in str(error.value)
    assert expected in str(error.value)


def test_a_file_that_is_no_checkpoint(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.ckpt cannot be read \("):
        load_model(checkpoint, CPU)


@pytest.mark.parametrize("hparams", [{"latent_dim": 3}, {"latent_dim": "two"}])
def test_a_checkpoint_of_other_code(checkpoint: Path, hparams: dict[str, Any]) -> None:
    path = altered(checkpoint, **hparams)
    with pytest.raises(ValueError) as error:
        load_model(path, CPU)
    assert str(error.value).startswith(f"{path}: does not fit this version of PCA: ")
    assert str(error.value).endswith("Use the version that trained it: the first line of its config.yaml names it.")


def test_arguments_are_replaced_where_asked(checkpoint: Path) -> None:
    found = class_in(checkpoint, "hyper_parameters", Model, "model")
    assert found is PCA
    with pytest.raises(ValueError, match="does not fit this version of PCA"):
        build(checkpoint, PCA, {"latent_dim": 4})
    assert build(checkpoint, PCA, {"latent_dim": 2}).latent_shape == (2,)
