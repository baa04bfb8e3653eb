"""What is said of errors: whose argument was refused, where torch and Python do not say."""

import math
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_vae.models.pca import Moments, solve
from lit_vae.run.errors import message_for_user, without_noise
from lit_vae.run.trust import forget_classes, trust_classes_of


class Fragile:
    def __init__(self, width: int, layers: int = 2) -> None:
        self.inner = Inner(width)


class Inner:
    def __init__(self, width: int) -> None:
        raise KeyError(width)


def raised(named: bool) -> Exception:
    forget_classes()
    if named:
        trust_classes_of({"network": {"class_path": f"{__name__}.Fragile"}})
    with pytest.raises(KeyError) as error:
        Fragile(-7)
    return error.value


def test_an_error_within_a_component_names_it_and_what_it_was_given() -> None:
    said = message_for_user(raised(named=True), begun=False)
    assert said == (
        f"error: {__name__}.Fragile: cannot be built: -7\nChange one of its init_args: width (=-7), layers (=2)."
    )


def test_an_error_of_no_component_or_in_training_is_the_programs() -> None:
    assert message_for_user(raised(named=False), begun=False) is None
    assert message_for_user(raised(named=True), begun=True) is None


def test_a_setting_that_training_finds_to_be_wrong_needs_no_traceback() -> None:
    """PCA learns from the images how many directions there can be."""
    moments = Moments(torch.tensor(4), torch.zeros(3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="hold all the variance") as error:
        solve(moments, latent_dim=2)
    assert message_for_user(error.value, begun=True) == f"error: {error.value}"
    elsewhere = ValueError("PCA: latent_dim (=2) is in a message that no component raised")
    assert message_for_user(elsewhere, begun=True) is None


def test_a_setting_that_lightning_refuses_when_it_has_counted_the_batches_needs_no_traceback(
    lightning: Callable[..., None], digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        lightning(
            "fit", "--config", digits_config, "--run_dir", tmp_path / "run", "--trainer.val_check_interval=100000"
        )
    assert exit_info.value.code == 1
    said = capsys.readouterr().err
    assert "error: " in said
    assert "`val_check_interval` (100000)" in said
    assert "Traceback" not in said


def test_words_of_our_own_are_left_as_they_are() -> None:
    assert message_for_user(ValueError("MLP: hidden (=[0]) must be positive."), begun=False) == (
        "error: MLP: hidden (=[0]) must be positive."
    )


def test_an_error_within_an_error_of_the_parsers_is_found() -> None:
    outer = ValueError("Does not validate against any of the Union subtypes")
    outer.__cause__ = raised(named=True)
    said = message_for_user(outer, begun=False)
    assert said is not None
    assert said.startswith(f"error: {__name__}.Fragile: cannot be built: -7")


def test_what_lists_all_types_is_left_out() -> None:
    told = (
        "Not a valid subclass of Precision\n  Subclass types expect one of:\n  - a class path (str)\n  - a dict with x"
    )
    assert without_noise(told) == "Not a valid subclass of Precision"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"best_checkpoint": math.nan}, "variant.yaml: best_checkpoint (=nan) must be a mapping of its settings"),
        ({"last_checkpoint": [1]}, "variant.yaml: last_checkpoint (=[1]) must be"),
        ({"trainer": None}, "variant.yaml: trainer (=None) must be"),
        (
            {"model.init_args.encoder.init_args.activation": "torch.nn.Threshold"},
            "lit_vae.networks.MLP: cannot be built: Threshold.__init__() missing 2 required positional arguments:"
            " 'threshold' and 'value'\nChange one of its init_args: ",
        ),
        (  # by the path that was typed, not by that of the file within torch
            {"model.init_args.encoder": {"class_path": "torch.nn.Linear"}},
            "error: torch.nn.Linear: cannot be built: empty(): argument 'size' ",
        ),
        ({"model.init_args.encoder": {}}, "error: torch.nn.Module: cannot be built: a network needs a class_path"),
        (
            {"model.init_args.optimizer": {}},
            "the following arguments are required: defaults\nA component without class_path needs them.",
        ),
    ],
)
def test_the_command_line_says_it_in_few_words(
    changed: dict[str, Any],
    expected: str,
    digits_config: Path,
    tmp_path: Path,
    lightning: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load(digits_config.read_text())
    for key, value in changed.items():
        *above, last = key.split(".")
        reduce(lambda part, name: part[name], above, config)[last] = value
    (tmp_path / "variant.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    # an overlay that would hide the first
    (tmp_path / "overlay.yaml").write_text("trainer: {max_epochs: 1}\nbest_checkpoint: {mode: min}\n")
    with pytest.raises(SystemExit) as ended:
        lightning("fit", "--config", tmp_path / "variant.yaml", "--config", tmp_path / "overlay.yaml", "--run_dir", run)
    assert ended.value.code in {1, 2}
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.splitlines()) < 10
    assert not run.exists()
