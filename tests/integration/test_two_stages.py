"""From images to codes, from codes to a prior, from the prior to pictures; and what is said where they do not fit."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from two_stages_helpers import CONFIGS, QUIET, TwoStages

from lit_vae.data import Codes
from lit_vae.run.loading import identity, load_model

Lightning = Callable[..., None]
PRIOR = CONFIGS / "prior" / "digits.yaml"
CPU = torch.device("cpu")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def numbers_of(lightning: Lightning, run: Path) -> dict[str, Any]:
    """What ``lightning test`` writes of the best weights of a run."""
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "best")
    record: dict[str, Any] = json.loads((run / "test_metrics.json").read_text())
    return record


@torch.no_grad()
def code_lengths(model: Any, data: Codes) -> torch.Tensor:
    """``-log p(codes | y)`` of every test image in nats, ``(N,)``: a softmax at every position of every level."""
    found = []
    for codes, y in data.ordered_dataloader("test"):
        total = torch.zeros(len(y), dtype=torch.float64)
        for level, target in enumerate(codes):
            log_p = model.logits(level, codes, y).double().log_softmax(1)
            total -= log_p.gather(1, target.unsqueeze(1)).flatten(1).sum(1)
        found.append(total)
    return torch.cat(found)


def test_the_numbers_of_a_prior_are_those_of_both_stages(lightning: Lightning, two_stages: TwoStages) -> None:
    record, first = numbers_of(lightning, two_stages.prior), numbers_of(lightning, two_stages.stage1)
    numbers, manifest = record["metrics"], json.loads((two_stages.codes / "codes.json").read_text())
    assert numbers.keys() == {f"test/{name}" for name in ("loss", "rate", "elbo", "bits_per_dim", "bits_per_code")}
    assert record["model"] == "CodePrior"
    assert record["stage1_sha256"] == first["checkpoint_sha256"] == manifest["checkpoint"]["sha256"]

    model = load_model(two_stages.prior / "checkpoints" / "best.ckpt", CPU)
    rate = float(code_lengths(model, Codes(str(two_stages.codes))).mean())
    distortion = manifest["splits"]["test"]["distortion"]
    assert numbers["test/rate"] == numbers["test/loss"] == pytest.approx(rate, rel=1e-6)
    assert distortion == pytest.approx(first["metrics"]["test/distortion"], rel=1e-6)
    assert numbers["test/elbo"] == pytest.approx(-(distortion + rate), rel=1e-6)
    assert numbers["test/bits_per_code"] == pytest.approx(rate / (16 * math.log(2)), rel=1e-6)
    # of 64 values in 128ths of [-1, 1), dequantised
    assert numbers["test/bits_per_dim"] == pytest.approx((distortion + rate) / (64 * math.log(2)) + 7, rel=1e-6)
    assert first["metrics"]["test/rate"] == pytest.approx(16 * math.log(32), rel=1e-6)
    assert rate < 16 * math.log(32)  # shorter than with the uniform prior of stage 1


def test_training_draws_its_panel_and_says_whose_codes_these_are(two_stages: TwoStages) -> None:
    pictures = sorted(path.name for path in (two_stages.prior / "media" / "draws").iterdir())
    assert pictures == ["step_22.png", "step_44.png"]
    with Image.open(two_stages.prior / "media" / "draws" / pictures[-1]) as picture:
        assert picture.text["Description"] == "Draws from the model"  # type: ignore[attr-defined]
    content = torch.load(two_stages.prior / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["stage1"]["path"] == str(two_stages.stage1 / "checkpoints" / "best.ckpt")


TWO_LEVELS = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1},
    "model": {
        "class_path": "lit_vae.models.VQVAE2",
        "init_args": {
            "image_shape": [1, 8, 8],
            "grids": [[2, 2], [4, 4]],
            "quantizers": [
                {
                    "class_path": "lit_vae.quantizers.VectorQuantizer",
                    "init_args": {
                        "num_embeddings": k,
                        "embedding_dim": 4,
                        "start": {"class_path": "lit_vae.quantizers.KMeans", "init_args": {"batches": 22}},
                    },
                }
                for k in (8, 16)
            ],
            "encoder": {
                "class_path": "lit_vae.networks.HierarchicalEncoder",
                "init_args": {"width": 16, "residual_width": 8, "blocks": 1},
            },
            "decoder": {
                "class_path": "lit_vae.networks.VQVAEDecoder",
                "init_args": {"width": 16, "residual_width": 8, "blocks": 1},
            },
            "likelihood": {"class_path": "lit_vae.likelihoods.LearnedGaussian"},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3}},
        },
    },
    "data": {"class_path": "lit_vae.data.Digits", "init_args": {"batch_size": 64}},
}
TWO_LEVEL_PRIOR = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "callbacks.Draws", "init_args": {"num_images": 4}}]},
    "model": {
        "class_path": "lit_vae.models.CodePrior",
        "init_args": {
            "grids": [[2, 2], [4, 4]],
            "num_embeddings": [8, 16],
            "networks": [
                {
                    "class_path": "lit_vae.networks.GatedPixelCNN",
                    "init_args": {"width": 16, "layers": 2, "kernel_size": 3, "head_width": 16},
                }
            ]
            * 2,
            "conditioning": {
                "class_path": "lit_vae.networks.ConditioningStack",
                "init_args": {"width": 16, "blocks": 1},
            },
            "embedding_dim": 8,
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3}},
        },
    },
    "data": {"class_path": "lit_vae.data.Codes", "init_args": {"root": "?", "collapse_threshold": 0.0}},
}


def test_two_levels(lightning: Lightning, lit_vae: Callable[..., None], tmp_path: Path) -> None:
    for name, config in (("stage1", TWO_LEVELS), ("prior", TWO_LEVEL_PRIOR)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    stage1, codes, prior = tmp_path / "stage1", tmp_path / "codes", tmp_path / "prior"
    lightning("fit", "--config", tmp_path / "stage1.yaml", "--run_dir", stage1, *QUIET)
    lit_vae("encode", stage1, "--out", codes)
    lightning("fit", "--config", tmp_path / "prior.yaml", "--run_dir", prior, "--data.root", codes, *QUIET)
    assert (prior / "media" / "draws" / "step_22.png").is_file()

    numbers = numbers_of(lightning, prior)["metrics"]
    model = load_model(prior / "checkpoints" / "best.ckpt", CPU)
    rate = float(code_lengths(model, Codes(str(codes))).mean())
    assert numbers["test/rate"] == pytest.approx(rate, rel=1e-6)
    assert numbers["test/rate_0"] + numbers["test/rate_1"] == pytest.approx(rate, rel=1e-6)
    assert numbers["test/bits_per_code"] == pytest.approx(rate / (20 * math.log(2)), rel=1e-6)
    assert "test/bits_per_dim" not in numbers  # a density of images of 256 levels is no probability of any

    lit_vae("sample", prior, "--n", 4, "--temperature", 0)
    lit_vae("sample", prior, "--n", 4, "--top_k", 1, "--out", tmp_path / "top_k.png")
    assert np.array_equal(pixels(prior / "sheets" / "sample.png"), pixels(tmp_path / "top_k.png"))


def fails(lightning: Lightning, args: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail without a traceback; returns its message."""
    with pytest.raises(SystemExit) as exit_info:
        lightning(*args)
    assert exit_info.value.code in (1, 2)
    message = capsys.readouterr().err
    message = message[message.index("error: ") :]
    assert "Traceback" not in message
    assert "Namespace(" not in message
    return message


def codes_copy(two_stages: TwoStages, folder: Path, **changed: Any) -> Path:
    """The codes, with another manifest."""
    shutil.copytree(two_stages.codes, folder)
    manifest = folder / "codes.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changed}))
    return folder


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--data.root=nowhere"],
         "root (='nowhere') contains no codes.json. Write it with: lit-vae encode RUN --out DIR."),
        (["--data.root=CODES", "--model.num_embeddings=[16]"],
         "CodePrior: model.num_embeddings (=[16]) must be those of the codes, [32]."
         " Set model.init_args.num_embeddings."),
        (["--data.root=CODES", "--model.grids=[[2,2]]"],
         "CodePrior: model.grids (=[[2, 2]]) are not those of the codes, [[4, 4]] (the coarsest first)."
         " Set model.init_args.grids."),
        (["--data.root=CODES", "--model.grids=[[2,2],[4,4]]"],
         "CodePrior: grids (=2 given), num_embeddings (=1) and networks (=1) must be one for each level"),
        (["--data.root=UNLABELLED"],
         "CodePrior: model.num_classes (=10) must be the number of the data's labels (=0)."
         " Set model.init_args.num_classes, to 0 for a model without labels."),
        (["--data", "lit_vae.data.Digits"],
         "CodePrior: it is a prior of codes, and the data are images. Take lit_vae.data.Codes."),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_prior_is_one_clear_error(
    lightning: Lightning,
    two_stages: TwoStages,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    expected: str,
) -> None:
    unlabelled = codes_copy(two_stages, tmp_path / "unlabelled", num_classes=0)
    config = yaml.safe_load(PRIOR.read_text())
    if "--data" in args:
        del config["data"]
    (tmp_path / "prior.yaml").write_text(yaml.safe_dump(config))
    args = [arg.replace("CODES", str(two_stages.codes)).replace("UNLABELLED", str(unlabelled)) for arg in args]
    given = ["fit", "--config", tmp_path / "prior.yaml", "--run_dir", tmp_path / "run", *args]
    assert expected in fails(lightning, given, capsys)
    assert not (tmp_path / "run").exists()


def test_codes_are_no_data_of_a_model_of_images(
    lightning: Lightning,
    two_stages: TwoStages,
    digits_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load(digits_config.read_text())
    config["data"] = {"class_path": "lit_vae.data.Codes", "init_args": {"root": str(two_stages.codes)}}
    (tmp_path / "vae.yaml").write_text(yaml.safe_dump(config))
    message = fails(lightning, ["fit", "--config", tmp_path / "vae.yaml", "--run_dir", tmp_path / "run"], capsys)
    assert "VAE: it is a model of images, and the data are a CodeSpec. Take image data, or" in message
    assert not (tmp_path / "run").exists()


def test_a_prior_goes_on_with_the_codes_of_its_stage_1_only(
    lightning: Lightning, two_stages: TwoStages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(two_stages.prior, tmp_path / "run"))
    other_file = Path(shutil.copy(two_stages.stage1 / "checkpoints" / "last.ckpt", tmp_path / "other.ckpt"))
    other = {"path": str(other_file), "sha256": identity(other_file)}
    root = codes_copy(two_stages, tmp_path / "codes", checkpoint=other)
    given = ["fit", "--config", run / "config.yaml", "--ckpt_path", "last", "--data.root", root]
    message = fails(lightning, [*given, "--trainer.max_epochs=3"], capsys)
    stage1 = two_stages.stage1 / "checkpoints" / "best.ckpt"
    assert f"CodePrior: it was trained on codes of {stage1} (SHA-256 " in message
    assert (
        f"but data.root has codes of {other_file} ({other['sha256'][:12]}). Encode with the former, or train a new"
        in message
    )


def test_the_panel_needs_stage_1_before_training(
    lightning: Lightning, two_stages: TwoStages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = {"path": "moved.ckpt", "sha256": "f" * 64}
    root = codes_copy(two_stages, tmp_path / "codes", checkpoint=moved)
    message = fails(lightning, ["fit", "--config", PRIOR, "--run_dir", tmp_path / "run", "--data.root", root], capsys)
    assert "stage 1 of the prior is missing: moved.ckpt." in message
    assert not (tmp_path / "run").exists()
