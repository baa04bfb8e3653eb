"""``lit-vae evaluate`` of a diffusion model that is drawn in other ways than in its run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tools_helpers import Fails, Tools, data_of, model_of

import callbacks.sample_quality as sample_quality
from callbacks.draws import draw_images
from callbacks.sample_quality import measure_samples, real_set
from lit_vae.diffusion import ClassifierFree, Heun, Sampling
from lit_vae.features import PCAFeatures
from lit_vae.images import levels
from lit_vae.metrics import Frechet
from lit_vae.networks import UNet
from lit_vae.run.wandb_reopened import numbers_of
from lit_vae.tools.compare.numbers import read_numbers
from lit_vae.tools.measure.guidance import draw_curve
from lit_vae.tools.records import read_records

FEW = ["--features", "pca", "--num_images", 20, "--seed", 3]
OWN = "4 steps of DDIM (eta 1), guidance 1.5"


@pytest.fixture
def run(diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, to write into; tables are wide. After one step of training its network ignores the class."""
    monkeypatch.setenv("COLUMNS", "300")
    copy = Path(shutil.copytree(diffusion, tmp_path / "run"))
    path, generator = copy / "checkpoints" / "best.ckpt", torch.Generator().manual_seed(0)
    saved = torch.load(path, weights_only=True)
    for name, weights in saved["state_dict"].items():
        if name.startswith("network."):
            weights.add_(torch.randn(weights.shape, generator=generator), alpha=0.2)
    torch.save(saved, path)
    return copy


def evaluation(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_the_curve_goes_through_the_runs_own_number(tools: Tools, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without guidance the network is called once in each step; the real images are looked at once for all scales."""
    tools("evaluate", run, *FEW, "--extended", "true")
    own = evaluation(run)["model"]
    calls = counted(monkeypatch)
    shown = tools("evaluate", run, *FEW, "--extended", "true", "--guidance", "1,1.5,3")
    assert calls == {"network": (1 + 2 + 2) * 4, "real": 1}
    record = evaluation(run)
    assert record["model"] == own
    curve = record["samplings"]
    assert list(curve) == [f"4 steps of DDIM (eta 1), guidance {scale}" for scale in ("1", "1.5", "3")]
    assert curve[OWN]["metrics"] == own["metrics"]
    protocol = curve[OWN]["protocols"]["test/fd_pca64"]
    assert (protocol.pop("sampling"), protocol.pop("guidance")) == (OWN, 1.5)
    assert protocol.keys() == own["protocols"]["test/fd_pca64"].keys()
    assert {**protocol, "seconds": 0.0} == {**own["protocols"]["test/fd_pca64"], "seconds": 0.0}
    distances = [of["metrics"]["test/fd_pca64"] for of in curve.values()]
    assert len(set(distances)) == 3
    (line,) = [line for line in shown.splitlines() if "test/fd_pca64" in line]
    assert line.replace("│", " ").split() == ["test/fd_pca64", *(f"{value:.4f}" for value in distances)]
    assert shown.splitlines()[-2:] == [str(run / "sheets" / "guidance.png"), str(run / "evaluation.json")]
    with Image.open(run / "sheets" / "guidance.png") as picture:
        assert picture.info["Description"] == (
            "Distances of samples to real images by guidance, 4 steps of DDIM (eta 1)"
        )


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the network is called, and the features of the real images are asked for, from now on."""
    calls = {"network": 0, "real": 0}

    def counting(name: str, function: Any) -> Any:
        def count(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        return count

    monkeypatch.setattr(UNet, "forward", counting("network", UNet.forward))
    monkeypatch.setattr(sample_quality, "reference_set", counting("real", sample_quality.reference_set))
    return calls


def test_numbers_of_other_calls_stay(tools: Tools, run: Path) -> None:
    tools("evaluate", run, *FEW, "--guidance", "2")
    first = evaluation(run)
    assert set(first) == {"samplings"}
    assert read_numbers(read_records(run), {}).keys().isdisjoint({"fd_pca64"})
    tools("evaluate", run, *FEW)
    second = evaluation(run)
    assert second["samplings"] == first["samplings"]
    own = second["model"]["metrics"]["test/fd_pca64"]
    assert read_numbers(read_records(run), {})["fd_pca64"].value == own  # what `lit-vae compare` shows
    assert numbers_of(run) == {"test/fd_pca64": own}  # what W&B gets
    tools("evaluate", run, *FEW, "--guidance", "0")
    third = evaluation(run)
    assert [how.rpartition(" ")[2] for how in third["samplings"]] == ["2", "0"]
    assert third["samplings"].items() > first["samplings"].items()
    assert not (run / "sheets").exists()
    tools("evaluate", run, *FEW, "--guidance", "2", "--checkpoint", "last")
    assert evaluation(run)["model"] == third["model"]
    assert [of["checkpoint"] for of in evaluation(run)["samplings"].values()] == ["last.ckpt"]


def test_another_sampler_is_taken(tools: Tools, run: Path, no_grad: None) -> None:
    shown = tools("evaluate", run, *FEW, "--steps", 3, "--sampler", "heun", "--guidance_interval", "[-2,3]")
    model, data = model_of(run), data_of(run)
    model.sampling = Sampling(3, Heun(), model.sampling.grid, ClassifierFree(1.5, (-2.0, 3.0)))
    assert str(model.sampling) in shown
    ((how, of),) = evaluation(run)["samplings"].items()
    assert how == str(model.sampling)
    features = PCAFeatures.fit(levels(x, data.spec.values) for x, _ in data.ordered_dataloader("train"))
    y = torch.arange(20) % 10
    real = real_set(data, "train", features, [Frechet()], y)
    expected, _ = measure_samples(
        lambda y, seed: draw_images(model, y, seed), y, real, data.spec, features, [Frechet()], 3
    )
    assert of["metrics"] == {"test/fd_pca64": pytest.approx(float(expected["fd_pca64"]))}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["CVAE", "--guidance", "1,2"], "are for a diffusion model, and a CVAE is none. Leave them out."),
        (["DIFFUSION", "--guidance", "1,-2"], "lit-vae evaluate: ClassifierFree: scale (=-2.0) must be at least 0."),
        (["DIFFUSION", "--guidance", "1,inf"], "ClassifierFree: scale (=inf) must be a finite number and at least 0."),
        (["DIFFUSION", "--guidance", "1,2,1.0"], "--guidance (=1,2,1.0) has 1 more than once. Give each scale once."),
        (["DIFFUSION", "--guidance", "1;2"], "--guidance (=1;2) must be numbers with commas between them, such as 1,"),
        (["DIFFUSION", "--guidance", "1,"], "--guidance (=1,) must be numbers with commas between them, such as 1,"),
        (
            ["DIFFUSION", "--guidance", "1,2", "--prior", "gmm"],
            "lit-vae evaluate: --prior gmm draws latents",
        ),
        (["CVAE", "--steps", 5, "--prior", "gmm"], "lit-vae evaluate: --prior gmm draws latents of an autoencoder;"),
        (["DIFFUSION", "--steps", 1], "lit-vae evaluate: Sampling: steps (=1) must be at least 2."),
    ],
)
def test_a_mistake_is_one_clear_error(
    fails: Fails, runs: dict[str, Path], diffusion: Path, args: list[Any], expected: str
) -> None:
    run = {**runs, "DIFFUSION": diffusion}[args[0]]
    assert expected in fails(1, "evaluate", run, *args[1:], "--features", "pca")
    assert not (run / "evaluation.json").exists()


def test_a_scale_without_a_number_is_left_out_of_the_picture() -> None:
    """A model that diverges at a large scale leaves a blank there."""
    names = ("fd", "precision", "recall")
    whole = {scale: dict(zip(names, (5.0 - scale, 0.2 * scale, 0.9 / scale), strict=True)) for scale in (1.0, 2.0)}
    blank: dict[str, float | None] = dict.fromkeys(names)
    picture = np.asarray(draw_curve(whole, *names))
    assert np.array_equal(np.asarray(draw_curve({**whole, 9.0: blank}, *names)), picture)
    distance = {scale: {"fd": numbers["fd"]} for scale, numbers in whole.items()}
    alone = np.asarray(draw_curve(distance, *names))
    assert (alone.shape[0], 2 * alone.shape[1]) == picture.shape[:2]
