"""A checkpoint imports nothing but what is trusted, however it names it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_vae.data import ImageDataModule
from lit_vae.features import FeatureNetFeatures
from lit_vae.models import FeatureNet
from lit_vae.networks import ResidualFeatures
from lit_vae.run import trust
from lit_vae.run.loading import images_of, load_model

CPU = torch.device("cpu")
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
EVIL = """
from pathlib import Path
import torch
Path(__file__).with_name("ran").touch()
class Evil(torch.nn.Module):
    def __init__(self, x: int = 0) -> None:
        super().__init__()
def schedule(step: int) -> float:
    return 1.0
"""
NAMES = {"class_path": "evil.Evil"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of calls within Lightning
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    monkeypatch.setattr(trust, "_named_by_user", set())


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Appears when the module ``evil`` is imported."""
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "evil.yaml").write_text("class_path: evil.Evil\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


def checkpoint(folder: Path, changed: dict[str, Any], **content: Any) -> Path:
    """What the command line would write of a FeatureNet, but for some of its arguments."""
    sizes = {"widths": [4]}
    plain = {
        "_class_path": "lit_vae.models.FeatureNet", "_instantiator": INSTANTIATOR, "image_shape": [1, 4, 4],
        "num_classes": 2, "network": {"class_path": "lit_vae.networks.ResidualFeatures", "init_args": sizes},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}},
    }  # fmt: skip
    model = FeatureNet([1, 4, 4], 2, lambda *a: ResidualFeatures(*a, **sizes), torch.optim.Adam)
    whole = {"state_dict": model.state_dict(), "hyper_parameters": plain | changed, "epoch": 0, "global_step": 0}
    path = folder / "model.ckpt"
    torch.save({**whole, "pytorch-lightning_version": "2.6.0", "loops": {}, **content}, path)
    return path


def test_what_our_own_classes_make_is_loaded(tmp_path: Path) -> None:
    shift = {"class_path": "lit_vae.networks.RandomTranslation", "init_args": {"max_pixels": 1}}
    layers = {"class_path": "torch.nn.Dropout", "init_args": {"p": 0.25}}
    assert isinstance(load_model(checkpoint(tmp_path, {"augmentation": layers}), CPU).augmentation, torch.nn.Dropout)
    model = load_model(checkpoint(tmp_path, {"augmentation": shift}), CPU)
    assert type(model.augmentation).__name__ == "RandomTranslation"


SPELLINGS = {
    "a class": {"augmentation": NAMES},
    "a class's arguments": {"augmentation": {**NAMES, "init_args": {"x": 1}}},
    "a string": {"augmentation": "evil.Evil"},
    "YAML in a string": {"augmentation": "{class_path: evil.Evil}"},
    "a file": {"augmentation": "evil.yaml"},
    "its arguments": {"augmentation": {"class_path": "torch.nn.Dropout", "init_args": {"p": NAMES}}},
    "a list of lists": {"augmentation": {"class_path": "torch.nn.Sequential", "init_args": {"args": [[NAMES]]}}},
    "keywords": {"augmentation": {"class_path": "torch.nn.Dropout", "dict_kwargs": {"p": NAMES}}},
    "an argument that is none": {"beside": NAMES},
    "the model": {"_class_path": "evil.Evil"},
    "the instantiator": {"_instantiator": "evil.Evil"},
    "a network": {"network": NAMES},
    "an optimizer": {"optimizer": "evil.schedule"},
    "a schedule's function": {
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "evil.schedule"}}
    },
    "not a string": {"augmentation": {"class_path": ["evil.Evil"]}},
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_imports_what_is_not_trusted(tmp_path: Path, ran: Path, spelling: str) -> None:
    path = checkpoint(tmp_path, SPELLINGS[spelling])
    for load in (lambda: load_model(path, CPU), lambda: FeatureNetFeatures(str(path)).num_features):
        with pytest.raises(ValueError) as error:
            load()
        assert str(path) in str(error.value)
        assert len(str(error.value).splitlines()) <= 10
        assert not ran.exists()
        assert "evil" not in sys.modules


def test_lightnings_older_keys_import_nothing_either(tmp_path: Path, ran: Path) -> None:
    path = checkpoint(tmp_path, {}, hparams={"augmentation": NAMES})
    with pytest.raises(ValueError, match=r"model\.ckpt: a value names evil\.Evil.* LIT_VAE_TRUST=evil\."):
        load_model(path, CPU)
    assert not ran.exists()


@pytest.mark.parametrize("key", ["root", "_class_path"])
def test_data_modules_import_nothing_either(tmp_path: Path, ran: Path, key: str) -> None:
    hparams = {"_class_path": "lit_vae.data.ImageFolder", "_instantiator": INSTANTIATOR, "root": "x", "size": 8}
    hparams[key] = NAMES if key == "root" else "evil.Evil"
    path = checkpoint(tmp_path, {}, datamodule_hyper_parameters=hparams)
    with pytest.raises(ValueError, match=r"model\.ckpt: .* names evil\.Evil, and importing that could run any code"):
        images_of(str(path), ImageDataModule)
    assert not ran.exists()


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "torch.hub.load",
        "torch.jit.ScriptModule",
        "torchvision.transforms.RandomCrop",
        "torch.nn.modules.module.torch.os.system",
        "torch.nn.modules.module.OrderedDict",
        "lit_vae.run.loading.Path",
        "lit_vae.cli.LightningCLI",
        "lit_vae.cli.subprocess.Popen",
        "lit_vae.tools.__main__.main",
        "lit_vae.tools.main",
        "torch.nn.init.zeros_",
        "torch.nnn.Linear",
        "callbacks_.Draws",
        "lit_vae",
        "torch.nn..Linear",
        "torch.nn.Linear\nevil",
        "",
    ],
)
def test_trusted_packages_do_not_lead_to_others(tmp_path: Path, ran: Path, class_path: str) -> None:
    for given in ({"class_path": class_path}, class_path):
        path = checkpoint(tmp_path, {"augmentation": given})
        with pytest.raises(ValueError) as error:
            load_model(path, CPU)
        assert str(path) in str(error.value)


def test_the_class_is_named_with_its_key_and_what_allows_it(tmp_path: Path, ran: Path) -> None:
    path = checkpoint(tmp_path, {"augmentation": {"class_path": "torch.nn.Sequential", "init_args": {"args": [NAMES]}}})
    with pytest.raises(ValueError) as error:
        load_model(path, CPU)
    assert str(error.value) == (
        f"{path}: hyper_parameters.augmentation.init_args.args.0.class_path names evil.Evil, and importing that could"
        " run any code, so it was not imported. The file may name classes of lit_vae, callbacks, torch.nn,"
        " torch.optim and your own --config. If you trust the author of the file: lit-vae ... --trust evil, or"
        " LIT_VAE_TRUST=evil."
    )


@pytest.mark.parametrize("allowed", ["evil", "evil.Evil", "other, evil"])
def test_the_user_can_trust_a_package_or_a_class(
    tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setenv(trust.VARIABLE, allowed)
    model = load_model(checkpoint(tmp_path, {"augmentation": NAMES}), CPU)
    assert type(model.augmentation).__name__ == "Evil"
    assert ran.exists()


def test_what_is_trusted_must_be_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.VARIABLE, "lit_vae,*")
    with pytest.raises(ValueError, match=r"--trust, LIT_VAE_TRUST: \* is not the name of a package or class"):
        load_model(checkpoint(tmp_path, {}), CPU)


def test_classes_of_the_users_own_configuration_are_trusted(tmp_path: Path, ran: Path) -> None:
    trust.trust_classes_of({"fit": {"model": {"init_args": {"encoder": [NAMES]}}}})
    model = load_model(checkpoint(tmp_path, {"augmentation": NAMES}), CPU)
    assert type(model.augmentation).__name__ == "Evil"
    trust.forget_classes()
    with pytest.raises(ValueError, match=r"names evil\.Evil"):
        load_model(checkpoint(tmp_path, {"augmentation": NAMES}), CPU)


def test_other_configurations_are_read_as_before(tmp_path: Path, ran: Path) -> None:
    """The limits end with the checkpoint."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--layer", type=torch.nn.Module)
    with trust.only_trusted(tmp_path / "file"):
        pass
    assert parser.parse_args(["--layer=evil.Evil"]).layer.class_path == "evil.Evil"


def test_a_configuration_from_elsewhere_adds_no_trust(tmp_path: Path, ran: Path) -> None:
    with trust.only_trusted(tmp_path / "file"):
        trust.trust_classes_of({"model": NAMES})
    assert not ran.exists()
    assert "evil.Evil" not in trust.trusted()
