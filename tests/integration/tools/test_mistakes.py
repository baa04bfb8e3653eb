"""What ``lit-vae`` says of mistakes, and in its help."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tools_helpers import Fails, RunCopy, Tools

from lit_vae.tools import VERBS, main


def test_data_elsewhere(tools: Tools, fails: Fails, run_copy: RunCopy, tmp_path: Path) -> None:
    run, images = run_copy("VAE"), tmp_path / "images"
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["datamodule_hyper_parameters"] = {
        "_class_path": "lit_vae.data.ImageFolder", "root": str(tmp_path / "moved"), "size": 8, "channels": 1,
        "num_val": 2, "num_test": 5, "dequantize": True, "num_workers": 0,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }  # fmt: skip
    torch.save(content, run / "checkpoints" / "best.ckpt")
    message = fails(1, "reconstruct", run, "--n", 5)
    assert f"ImageFolder: root (={str(tmp_path / 'moved')!r}) is not a folder." in message
    assert "--data_root" in message
    tools("sample", run)  # needs no data
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(images / f"{i}.png")
    tools("reconstruct", run, "--n", 5, "--data_root", images)


def test_nothing_is_downloaded(fails: Fails, run_copy: RunCopy, tmp_path: Path) -> None:
    run = run_copy("VAE")
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["image_shape"] = [1, 28, 28]
    content["state_dict"] = {  # an MNIST run of the same networks
        name: torch.zeros(256, 784) if name == "encoder.layers.0.weight"
        else torch.zeros(784, 256) if value.shape == (64, 256)
        else torch.zeros(784) if value.shape == (64,) else value
        for name, value in content["state_dict"].items()
    }  # fmt: skip
    content["datamodule_hyper_parameters"] = {
        "_class_path": "lit_vae.data.MNIST", "root": str(tmp_path / "data"), "dequantize": True, "download": True,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }  # fmt: skip
    torch.save(content, run / "checkpoints" / "best.ckpt")
    message = fails(1, "reconstruct", run)
    assert f"MNIST: root (={str(tmp_path / 'data')!r}) does not contain the data set." in message
    assert "--data_root" in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["sample", "RUN", "--n", 0, "--temperature", -1], "lit-vae sample: --n (=0) must be at least 1.\nlit-vae"),
        (["sample", "RUN", "--temperature", -1], "--temperature (=-1) must be at least 0."),
        (["sample", "RUN", "--label", 3], "--label 3: VAE is not told labels. Leave --label out"),
        (["sample", "CVAE", "--label", 10], "--label 10 must be between 0 and 9: the model has 10 classes."),
        (["sample", "CVAE", "--label", -1], "--label -1 must be between 0 and 9"),
        (["sample", "CVAE", "--label", "seven"], "--label seven must be between 0 and 9: the model has 10 classes."),
        (["sample", "CVAE", "--pixels", "both"], "Give --label, or --pixels mean or sample."),
        (["sample", "RUN", "--out", "x.jpg"], "--out x.jpg: a picture is written as a PNG."),
        (["sample", "RUN", "--device", "gpu"], "--device gpu: "),
        (["sample", "nothing"], "there is no run nothing. Give a run directory, or a .ckpt file."),
        (["reconstruct", "empty"], "there is no checkpoint empty/checkpoints/best.ckpt. Is it a run directory?"),
        (["sample", "junk.ckpt"], "junk.ckpt cannot be read"),
        (["sample", "half.ckpt"], "half.ckpt cannot be read"),
        (["sample", "python.ckpt"], "python.ckpt does not name its model"),
        (["sample", "elsewhere.ckpt"], "its model is lit_vae.nowhere.Model: No module named 'lit_vae.nowhere'"),
        (["sample", "strange.ckpt"], "its model torch.nn.Linear is not a Model."),
        (["sample", "old.ckpt"], "old.ckpt: does not fit this version of VAE: "),
        (["interpolate", "RUN", "--steps", 1], "lit-vae interpolate: --steps (=1) must be at least 2."),
        (["traverse", "RUN", "--dims", 0], "lit-vae traverse: --dims (=0) must be at least 1."),
        (["traverse", "RUN", "--data_root", "x"], "--data_root x: Digits is read from no folder. Leave it out."),
        (["fit-prior", "RUN", "--components", 0], "lit-vae fit-prior: --components (=0) must be at least 1."),
        (["fit-prior", "RUN", "--num_images", 50], "need at least 90 images, the training set has 50."),
        (["table", "RUN"], "there is no test_metrics.json. Make it with: lightning test --config"),
    ],
)
def test_a_mistake_is_one_clear_error(
    fails: Fails,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = runs["VAE"] / "checkpoints" / "best.ckpt"
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.ckpt").write_text("junk")
    (tmp_path / "half.ckpt").write_bytes(checkpoint.read_bytes()[:20_000])
    content = torch.load(checkpoint, weights_only=True)
    hparams = content["hyper_parameters"]
    changed = {
        "python": {},
        "elsewhere": {**hparams, "_class_path": "lit_vae.nowhere.Model"},
        "strange": {**hparams, "_class_path": "torch.nn.Linear"},
        "old": {**hparams, "image_shape": [1, 4, 4]},
    }
    if args[1] in {f"{name}.ckpt" for name in changed}:
        torch.save({**content, "hyper_parameters": changed[args[1].partition(".")[0]]}, tmp_path / args[1])
    args = [runs.get({"RUN": "VAE"}.get(arg, arg), arg) for arg in args]
    before = sorted(tmp_path.rglob("*"))
    assert expected in fails(1, *args)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (runs["VAE"] / "priors").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], f"what is to be done? Give one of {', '.join(VERBS)}."),
        (["smple", "RUN"], "invalid choice: 'smple'"),
        (["sample"], "the following arguments are required: run\nSee lit-vae"),
        (["table"], "the following arguments are required: runs\nSee lit-vae"),
        (["compare"], "the following arguments are required: runs\nSee lit-vae"),
        (["compare", "RUN", "--split", "all"], "--split: expected Literal['train', 'val', 'test'], not all\n"),
        (["sample", "RUN", "--lable", "3"], "Did you mean --label instead of --lable?\nSee lit-vae sample --help."),
        (["sample", "RUN", "--n", "many"], "--n: expected int, not many\n"),
        (
            ["sample", "RUN", "--prior", "nf"],
            "--prior: expected Literal['model', 'gmm', 'flow', 'vamp', 'vae'], not nf\n",
        ),
    ],
)
def test_a_mistake_in_the_arguments_is_one_clear_error(fails: Fails, args: list[str], expected: str) -> None:
    assert expected in fails(2, *args)


def test_a_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["lit-vae", "sample", "nothing"])
    with pytest.raises(ValueError, match="there is no run nothing"):
        main()


@pytest.mark.parametrize(
    "verb",
    [
        "sample",
        "reconstruct",
        "interpolate",
        "traverse",
        "encode",
        "fit-prior",
        "evaluate",
        "table",
        "study",
        "compare",
    ],
)
def test_help_says_what_every_option_is(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", verb, "--help"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert "Args:" not in shown
    options = re.split(r"\n  (?=--|run|RUN)", shown)[1:]
    assert len(options) > 1
    for option in options:
        assert re.match(r"(--\w+ \S+|run|RUN) [A-Za-z].*\. \((required|type)", " ".join(option.split())), option


def test_the_program_is_what_these_tests_call(tmp_path: Path) -> None:
    """In a process of its own, as people start it."""
    command = [sys.executable, "-m", "lit_vae.tools", "table", f"{tmp_path}/none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/none: ")


def test_help_is_light() -> None:
    code = (
        "import sys, lit_vae.tools; print([m for m in ('torch', 'lightning', 'sklearn', 'rich') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"
