"""``lit-vae encode``, and ``lit-vae sample`` of models that draw value by value: sheets and mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tools_helpers import Fails, Tools, model_of, pixels
from two_stages_helpers import TwoStages

from callbacks import Draws
from lit_vae.data import Codes
from lit_vae.tools.runs import find_run, load_data


def description(path: Path) -> str:
    with Image.open(path) as picture:
        return str(picture.text["Description"])  # type: ignore[attr-defined]


def test_codes_are_those_of_the_images(tools: Tools, two_stages: TwoStages, tmp_path: Path) -> None:
    shown = tools("encode", two_stages.stage1, "--out", tmp_path / "again")
    model, written = model_of(two_stages.stage1), Codes(str(tmp_path / "again"))
    images = load_data(find_run(str(two_stages.stage1), "best"), model, None, [])
    manifest = json.loads((tmp_path / "again" / "codes.json").read_text())
    assert manifest == json.loads((two_stages.codes / "codes.json").read_text())
    for split, n in (("train", 1437), ("val", 180), ("test", 180)):
        x, y = images.example_batch(n, split)  # type: ignore[arg-type]
        codes, labels = written.example_batch(n, split)  # type: ignore[arg-type]
        assert torch.equal(labels, y)
        with torch.no_grad():
            assert torch.equal(codes[0], model.encode_codes(x, y)[0])
            distortion = -float(model.decode_codes(codes, y).log_prob(x).double().mean())
        assert manifest["splits"][split]["distortion"] == pytest.approx(distortion, rel=1e-5)
        assert f"{n} images  distortion {distortion:.2f} nats" in shown


def test_codes_lie_with_their_run_by_default(tools: Tools, two_stages: TwoStages, tmp_path: Path) -> None:
    run = Path(shutil.copytree(two_stages.stage1, tmp_path / "run"))
    assert tools("encode", run).endswith(f"{run / 'codes'}\n")
    assert Codes(str(run / "codes")).spec.checkpoint == str(run / "checkpoints" / "best.ckpt")


@pytest.mark.slow
def test_a_sheet_of_a_prior_is_a_function_of_its_arguments(tools: Tools, two_stages: TwoStages, tmp_path: Path) -> None:
    def sheet(name: str, *args: Any) -> np.ndarray:
        path = tmp_path / f"{name}.png"
        assert tools("sample", two_stages.prior, "--n", 6, "--out", path, *args).endswith(f"{path}\n")
        return pixels(path)

    label = ("--label", 3)
    exact = sheet("exact", *label)
    assert np.array_equal(exact, sheet("again", *label))
    assert not np.array_equal(exact, sheet("seed", *label, "--seed", 1))
    assert not np.array_equal(exact, sheet("label", "--label", 4))
    most_probable = sheet("cold", *label, "--temperature", 0)
    assert np.array_equal(most_probable, sheet("top_k", *label, "--top_k", 1))
    assert np.array_equal(most_probable, sheet("top_p", *label, "--top_p", 1e-6))
    assert not np.array_equal(exact, most_probable)
    assert np.array_equal(exact, sheet("all", *label, "--top_k", 32, "--top_p", 1))
    assert description(tmp_path / "exact.png") == "Draws from the model, label 3"
    assert description(tmp_path / "top_k.png") == "Draws from the model, the 1 most probable codes, label 3"
    sheet("warm", "--temperature", 1.5, "--top_p", 0.9)
    assert description(tmp_path / "warm.png") == (
        "Draws from the model, temperature 1.5, codes within the first 0.9 of the probability"
    )


def test_a_sheet_is_the_panel_of_training(tools: Tools, two_stages: TwoStages) -> None:
    shown = tools("sample", two_stages.prior, "--n", 100, "--checkpoint", "last")
    assert shown.endswith("sheets/sample.png\n")
    in_training = pixels(two_stages.prior / "media" / "draws" / "step_44.png")
    assert np.array_equal(pixels(two_stages.prior / "sheets" / "sample.png"), in_training)


def test_stage_1_moved_or_changed(tools: Tools, fails: Fails, two_stages: TwoStages, tmp_path: Path) -> None:
    run = Path(shutil.copytree(two_stages.prior, tmp_path / "prior"))
    checkpoint = run / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["stage1"]["path"] = str(tmp_path / "gone.ckpt")
    torch.save(content, checkpoint)
    message = fails(1, "sample", run, "--n", 4)
    assert f"stage 1 of the prior is missing: {tmp_path / 'gone.ckpt'}. Restore the checkpoint" in message
    assert "or give lit-vae sample --stage1 FILE." in message

    there = two_stages.stage1 / "checkpoints" / "best.ckpt"
    tools("sample", run, "--n", 4, "--stage1", there)
    tools("sample", two_stages.prior, "--n", 4, "--out", tmp_path / "expected.png")
    assert np.array_equal(pixels(run / "sheets" / "sample.png"), pixels(tmp_path / "expected.png"))

    shutil.copy(two_stages.stage1 / "checkpoints" / "last.ckpt", tmp_path / "gone.ckpt")
    message = fails(1, "sample", run, "--n", 4)
    assert f"{tmp_path / 'gone.ckpt'} is not the checkpoint that the prior was trained on (SHA-256 " in message
    assert "encode again and train a new prior." in message


def test_a_pixelcnn_draws_pixels(tools: Tools, pixelcnn: Path, two_stages: TwoStages) -> None:
    tools("sample", pixelcnn, "--n", 4, "--seed", 2)
    with torch.no_grad():
        expected = Draws(4, seed=2).draw(model_of(pixelcnn))
    assert np.array_equal(pixels(pixelcnn / "sheets" / "sample.png"), np.asarray(expected))
    assert set(np.unique(np.asarray(expected))) == {0, 255}


def test_stage_1_alone_draws_uniform_codes_and_says_so(
    tools: Tools, two_stages: TwoStages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools("sample", two_stages.stage1, "--n", 4, "--out", tmp_path / "uniform.png")
    assert "VQVAE: it has no prior: its codes are drawn uniformly." in description(tmp_path / "uniform.png")
    tools("reconstruct", two_stages.stage1, "--n", 4)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["encode", "HIERARCHY", "--out", "x"],
         "lit-vae encode: HierarchicalVAE has no codes and no Gaussian posterior of one latent. Give a run of a VQ-VAE,"
         " a VAE, a KLAutoencoder or an AE."),
        (["encode", "STAGE1", "--out", "x", "--shard_size", 9],
         "--mirrors, --shard_size, --rank and --world_size are for latents, and VQVAE has codes. Leave them out."),
        (["encode", "VAE", "--out", "x", "--rank", 2, "--world_size", 2], "--world_size (=2) must be at least 3."),
        (["encode", "VAE", "--out", "x", "--shard_size", 0], "--shard_size (=0) must be at least 1."),
        (["encode", "VAE", "--out", "."],
         "LatentWriter: root (='.') must not exist yet. Remove it or choose another --out."),
        (["encode", "PRIOR", "--out", "x"], "is a CodePrior, which has no latents. Give a run of an autoencoder."),
        (["encode", "STAGE1", "--out", "."],
         "CodeWriter: root (='.') must not exist yet. Remove it or choose another --out."),
        (["sample", "PRIOR", "--pixels", "sample"], "CodePrior has no --pixels and no --prior. Leave them out."),
        (["sample", "PRIOR", "--prior", "gmm"], "CodePrior has no --pixels and no --prior. Leave them out."),
        (["sample", "PRIOR", "--label", 10], "--label 10 must be between 0 and 9: the model has 10 classes."),
        (["sample", "PRIOR", "--top_k", 0], "lit-vae sample: CodeSampling: top_k (=0) must be at least 1."),
        (["sample", "PRIOR", "--top_p", 0], "CodeSampling: top_p (=0.0) must be greater than 0 and at most 1."),
        (["sample", "VAE", "--top_k", 3],
         "lit-vae sample: --top_k and --top_p need a prior of codes, and a VAE is none. Leave them out."),
        (["sample", "PIXELCNN", "--top_p", 0.5], "need a prior of codes, and a PixelCNN is none. Leave them out."),
        (["sample", "PIXELCNN", "--temperature", 0.5],
         "PixelCNN: temperature (=0.5) must be 1: its draws are exact."),
        (["sample", "STAGE1", "--temperature", 0.5], "--temperature is not for the uniform codes of VQVAE."),
        (["sample", "PIXELCNN", "--label", 1], "--label 1: PixelCNN is not told labels. Leave --label out"),
        (["reconstruct", "PRIOR"], "lit-vae reconstruct: "),
        (["reconstruct", "PRIOR"], "is a CodePrior, which has no latents. Give a run of an autoencoder."),
        (["fit-prior", "PIXELCNN"], "is a PixelCNN, which has no latents. Give a run of an autoencoder."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error(
    fails: Fails,
    runs: dict[str, Path],
    two_stages: TwoStages,
    pixelcnn: Path,
    hierarchy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"PRIOR": two_stages.prior, "STAGE1": two_stages.stage1, "PIXELCNN": pixelcnn, "HIERARCHY": hierarchy}
    assert expected in fails(1, *[(named | runs).get(arg, arg) for arg in args])
    assert not list(tmp_path.iterdir())
