"""Whatever a configuration may leave out can be left out on the command line, by its dotted key."""

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from fake_configs import configurations, content
from lightning.pytorch import Callback, LightningDataModule

from lit_vae.cli import Parser, quieten_lightning
from lit_vae.models.module import Model
from lit_vae.tools.configurations import complete_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GAN = CONFIGS / "kl_autoencoder" / "digits.yaml"
Key = tuple[str | int, ...]


def optional_settings(part: Any, key: Key) -> Iterator[tuple[type, str, Key]]:
    """Class, argument and key of whatever has a value and may be null: of a list, in its last item."""
    if isinstance(part, list) and part:
        yield from optional_settings(part[-1], (*key, -1))
    if not isinstance(part, dict):
        return
    if isinstance(part.get("class_path"), str):
        module, _, name = part["class_path"].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        given, key = part.get("init_args", {}), (*key, "init_args")
        hints = get_type_hints(cls.__init__)
        for argument in inspect.signature(cls).parameters.values():
            default = None if argument.default is inspect.Parameter.empty else argument.default
            may_be_null = NoneType in get_args(hints.get(argument.name))
            if may_be_null and given.get(argument.name, default) is not None:
                yield cls, argument.name, (*key, argument.name)
        part = given
    for name, value in part.items():
        yield from optional_settings(value, (*key, name))


def cases() -> list[Any]:
    """Return one configuration for each such argument. A row of a comparison needs its base, and sets nothing else."""
    found = {}
    for path in configurations():
        config = content(path)
        if not {"model", "data"} <= config.keys():
            continue
        for section in ("model", "data"):
            for cls, argument, key in optional_settings(config[section], (section,)):
                found.setdefault((cls, argument), (path, key))
        for cls, argument, key in optional_settings(config["trainer"]["callbacks"], ("trainer", "callbacks")):
            found.setdefault((cls, argument), (path, key))
    return [pytest.param(*case, id=f"{cls.__name__}.{argument}") for (cls, argument), case in found.items()]


@pytest.fixture(scope="module")
def parser() -> Parser:
    """What ``lightning fit`` reads of components."""
    quieten_lightning()
    parser = Parser(exit_on_error=False)
    parser.add_lightning_class_args(Model, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    parser.add_argument("--trainer.callbacks", type=list[Callback])
    return parser


def read(parser: Parser, path: Path, section: str, *args: str) -> Any:
    config = content(path)
    components = {"model": config["model"], "data": config["data"], "trainer.callbacks": config["trainer"]["callbacks"]}
    return parser.parse_args([f"--{section}={json.dumps(components[section])}", *args]).as_dict()


@pytest.mark.parametrize(("path", "key"), cases())
def test_a_setting_of_any_depth_is_made_null(parser: Parser, path: Path, key: Key) -> None:
    dotted = ".".join(part for part in key if isinstance(part, str))
    section = "trainer.callbacks" if key[0] == "trainer" else str(key[0])
    value = read(parser, path, section, f"--{dotted}", "null")
    for part in key:
        assert value is not None
        value = value[part]
    assert value is None


@pytest.mark.parametrize("spelling", ["null", "None"])
def test_null_is_spelt_as_in_yaml_or_python_and_without_init_args(parser: Parser, spelling: str) -> None:
    config = read(parser, GAN, "model", "--model.realism.perceptual", spelling)
    realism = config["model"]["init_args"]["realism"]["init_args"]
    assert realism["perceptual"] is None
    assert realism["adversary"] is not None


def test_a_value_of_any_depth_is_what_it_was(parser: Parser) -> None:
    given = {"optimizer": "{betas: [0.0, 0.9], lr: 1.0e-5, foreach: null}", "discriminator.spectral": "true"}
    args = [f"--model.realism.adversary.{key}={value}" for key, value in given.items()]
    adversary = read(parser, GAN, "model", *args)["model"]["init_args"]["realism"]["init_args"]["adversary"][
        "init_args"
    ]
    assert adversary["optimizer"] == {"betas": [0.0, 0.9], "lr": 1.0e-5, "foreach": None}
    assert adversary["discriminator"]["init_args"]["spectral"] is True


def test_the_product_s_ablations_are_on_the_command_line() -> None:
    ablation = {"perceptual": "null", "adversary.max_adaptive_weight": "null"}
    args = [arg for key, value in ablation.items() for arg in (f"--model.realism.{key}", value)]
    realism = complete_config([GAN], args)["model"]["init_args"]["realism"]["init_args"]
    assert realism["perceptual"] is None
    assert realism["adversary"]["init_args"]["max_adaptive_weight"] is None
    with pytest.raises(ValueError, match="required: loss"):
        complete_config([GAN], ["--model.realism.adversary.loss", "null"])
