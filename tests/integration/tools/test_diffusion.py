"""Sheets of diffusion models, drawn in another way than in training."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tools_helpers import Fails, Tools, model_of, pixels

from callbacks import Draws
from lit_vae.diffusion import ClassifierFree, DPMSolverPlusPlus2M, Sampling


def description(path: Path) -> str:
    with Image.open(path) as picture:
        return picture.info["Description"]


def test_options_take_the_place_of_the_runs_own(tools: Tools, diffusion: Path, tmp_path: Path, no_grad: None) -> None:
    out = tmp_path / "sheet.png"
    how = ["--steps", 6, "--sampler", "dpmpp_2m", "--guidance", 2.5, "--guidance_interval", "[-2,3]"]
    tools("sample", diffusion, "--n", 20, "--out", out, "--seed", 3, *how)
    assert description(out) == (
        "Draws from the model, 6 steps of DPMSolverPlusPlus2M, guidance 2.5 at log-SNR -2 to 3, the same noise in each"
        " column"
    )
    model = model_of(diffusion)
    model.sampling = Sampling(6, DPMSolverPlusPlus2M(), guidance=ClassifierFree(2.5, (-2.0, 3.0)))
    assert np.array_equal(pixels(out), np.asarray(Draws(20, seed=3).draw(model)))


def test_what_is_not_given_stays_as_in_the_run(tools: Tools, diffusion: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    tools("sample", diffusion, "--n", 4, "--out", out, "--label", 3, "--guidance_interval", "[-2,3]")
    assert description(out) == (
        "Draws from the model, 4 steps of DDIM (eta 1), guidance 1.5 at log-SNR -2 to 3, label 3"
    )
    tools("sample", diffusion, "--n", 4, "--out", out, "--label", 3, "--guidance", 0, "--sampler", "ddim")
    assert description(out) == "Draws from the model, 4 steps of DDIM, guidance 0, label 3"


def test_a_column_has_one_noise_and_a_row_one_class(diffusion: Path, no_grad: None) -> None:
    """With a network that ignores the class, all rows are the same."""
    model = model_of(diffusion)
    model.sampling = Sampling(4)
    deaf = lambda z, lam, cond: 0.1 * z  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.network, "forward", deaf)
        picture = Draws(30).draw(model)
    cells = np.array([[np.asarray(picture.crop(box)) for box in row] for row in picture.info["cells"]])
    assert cells.shape[:2] == (10, 3)
    assert (cells == cells[:1]).all()
    assert not any(np.array_equal(cells[0, 0], cells[0, column]) for column in (1, 2))


def test_the_bar_counts_all_nodes_of_all_rows(
    tools: Tools, diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    bar = nullcontext(lambda *counted: told.append(counted))
    monkeypatch.setattr("lit_vae.tools.pictures.samples.progress_bar", lambda what: bar)
    tools("sample", diffusion, "--n", 10, "--out", tmp_path / "sheet.png", "--steps", 3, "--sampler", "heun")
    assert told == [(done, 30) for done in range(1, 31)]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["PIXELCNN", "--steps", 20], "are for a diffusion model, and a PixelCNN is none. Leave them out."),
        (["DIFFUSION", "--steps", 1], "lit-vae sample: Sampling: steps (=1) must be at least 2."),
        (["DIFFUSION", "--temperature", 0.5], "temperature (=0.5) must be 1: a diffusion model has none."),
        (["DIFFUSION", "--temperature", "[1,1]"], "--temperature (=[1.0, 1.0]) must be one number."),
    ],
)
def test_a_mistake_is_one_clear_error(
    fails: Fails, pixelcnn: Path, diffusion: Path, tmp_path: Path, args: list[Any], expected: str
) -> None:
    run = {"PIXELCNN": pixelcnn, "DIFFUSION": diffusion}[args[0]]
    assert expected in fails(1, "sample", run, *args[1:], "--out", tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_another_name_of_a_sampler_is_told(fails: Fails, diffusion: Path) -> None:
    message = fails(2, "sample", diffusion, "--sampler", "euler")
    assert "--sampler: expected Literal['ddim', 'ancestral', 'heun', 'dpmpp_2m'], not euler" in message
