"""``lit-vae sample|reconstruct|interpolate|traverse`` as a user meets them: what they write."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of, pixels

from callbacks import ClassSheet, Interpolations, Reconstructions, Samples, Traversals
from callbacks.drawing import arrange, sheet
from callbacks.panel import decode_means, prior_latents
from lit_vae.images import to_uint8
from lit_vae.tools import main


@pytest.mark.parametrize("family", ["VAE", "CVAE", "AE"])
def test_a_checkpoint_alone_is_the_model_and_its_data(runs: dict[str, Path], family: str) -> None:
    content = torch.load(runs[family] / "checkpoints" / "best.ckpt", weights_only=True)
    model, data = model_of(runs[family]), data_of(runs[family])
    assert type(model).__name__ == family
    assert not model.training
    assert data.spec.values == "dequantized"
    state = model.state_dict()
    assert state.keys() == content["state_dict"].keys()
    assert all(torch.equal(state[name], value) for name, value in content["state_dict"].items())
    if family == "CVAE":  # what it draws with is the average
        name = "decoder.layers.0.weight"
        assert not torch.equal(state[name], content["current_model_state"][name])


@pytest.mark.parametrize("family", ["VAE", "CVAE", "AE"])
@pytest.mark.parametrize("verb", ["sample", "reconstruct", "interpolate", "traverse"])
def test_every_verb_writes_a_picture_and_the_same_one_again(
    tools: Tools, runs: dict[str, Path], tmp_path: Path, family: str, verb: str
) -> None:
    default = runs[family] / "sheets" / f"{verb}.png"
    assert tools(verb, runs[family]) == f"{default}\n"
    again = tmp_path / "not yet there" / "again.png"
    assert tools(verb, runs[family] / "checkpoints" / "best.ckpt", "--out", again) == f"{again}\n"
    assert again.read_bytes() == default.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["again.png"]
    assert pixels(again).std() > 1


def test_the_pictures_are_those_of_training(tools: Tools, runs: dict[str, Path], tmp_path: Path, no_grad: None) -> None:
    run, out = runs["VAE"], tmp_path / "x.png"
    model, data = model_of(run), data_of(run)
    for verb, options, expected in [
        ("sample", ["--n", 5, "--temperature", 0.5, "--seed", 3], Samples(5, temperature=0.5, seed=3).draw(model)),
        ("sample", ["--n", 4, "--pixels", "both"], Samples(4, pixels="both").draw(model)),
        ("reconstruct", ["--n", 3, "--split", "val"], Reconstructions(3).draw(model, data)),
        ("interpolate", ["--pairs", 2, "--steps", 4, "--path", "slerp", "--split", "val"],
         Interpolations(2, 4, "slerp").draw(model, data)),
        ("traverse", ["--dims", 3, "--steps", 5, "--num_images", 1, "--split", "val"],
         Traversals(3, 5, 1).draw(model, data)),
    ]:  # fmt: skip
        tools(verb, run, *options, "--out", out)
        assert np.array_equal(pixels(out), np.asarray(expected)), verb
    tools("sample", runs["CVAE"], "--n", 11, "--out", out)  # two columns show eleven images or more
    assert np.array_equal(pixels(out), np.asarray(ClassSheet(2).draw(model_of(runs["CVAE"]))))


def test_a_hierarchy_takes_a_temperature_for_each_level(
    tools: Tools, fails: Fails, hierarchy: Path, runs: dict[str, Path], tmp_path: Path, no_grad: None
) -> None:
    out = tmp_path / "x.png"
    tools("sample", hierarchy, "--n", 3, "--temperature", "[0.5,0,1]", "--out", out)
    expected = Samples(3, temperature=[0.5, 0.0, 1.0]).draw(model_of(hierarchy))
    assert np.array_equal(pixels(out), np.asarray(expected))
    for run, options, wrong in [
        (
            hierarchy,
            ["[1]"],
            "--temperature (=[1.0]) must be one number, or one for each of the model's 3 levels, from",
        ),
        (hierarchy, ["[1,-1,1]"], "--temperature (=-1) must be at least 0."),
        (hierarchy, ["[1,1,1]", "--prior", "gmm"], "--temperature (=[1.0, 1.0, 1.0]) must be one number."),
        (runs["VAE"], ["[0.5]"], "--temperature (=[0.5]) must be one number."),
    ]:
        assert fails(1, "sample", run, "--temperature", *options).startswith(f"error: lit-vae sample: {wrong}")


def test_a_traversal_of_the_top_level(
    tools: Tools, fails: Fails, hierarchy: Path, tmp_path: Path, no_grad: None
) -> None:
    out = tmp_path / "x.png"
    tools("traverse", hierarchy, "--dims", 2, "--steps", 3, "--level", 0, "--out", out, "--split", "val")
    expected = Traversals(2, 3, level=0).draw(model_of(hierarchy), data_of(hierarchy))
    assert np.array_equal(pixels(out), np.asarray(expected))
    wrong = "error: lit-vae traverse: --level (=3) must be less than 3, the number of levels of the model.\n"
    assert fails(1, "traverse", hierarchy, "--level", 3) == wrong


def test_images_are_of_the_split_that_is_asked_for(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    data = data_of(runs["VAE"])
    for split in ("train", "val", "test"):
        out = tmp_path / f"{split}.png"
        tools("reconstruct", runs["VAE"], "--n", 1, "--split", split, "--out", out)
        shown = pixels(out)[2:66, 2:66][::8, ::8]  # enlarged 8 times, behind a margin of 2
        assert np.array_equal(shown, to_uint8(data.example_batch(1, split).x)[0, 0].numpy())
        assert Image.open(out).text["Description"].startswith(f"{split.title()} images (upper row")  # type: ignore[attr-defined]


def test_last_and_best_are_different_checkpoints(tools: Tools, run_copy: RunCopy, tmp_path: Path) -> None:
    run = run_copy("VAE")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["decoder.layers.0.weight"].mul_(-1)
    torch.save(content, run / "checkpoints" / "last.ckpt")
    for name in ("best", "last"):
        tools("sample", run, "--checkpoint", name, "--out", tmp_path / f"{name}.png")
    assert not np.array_equal(pixels(tmp_path / "best.png"), pixels(tmp_path / "last.png"))


def test_a_label_draws_its_class(tools: Tools, runs: dict[str, Path], tmp_path: Path, no_grad: None) -> None:
    out, model, y = tmp_path / "x.png", model_of(runs["CVAE"]), torch.full((4,), 7)
    tools("sample", runs["CVAE"], "--n", 4, "--label", 7, "--out", out)
    expected = sheet(arrange(decode_means(model, prior_latents(model, y, 1.0, 0), y)))
    assert np.array_equal(pixels(out), np.asarray(expected))
    tools("sample", runs["CVAE"], "--n", 4, "--label", 2, "--out", out)
    assert not np.array_equal(pixels(out), np.asarray(expected))


def test_draws_from_a_family_without_a_prior_are_said_to_be_from_a_stand_in(
    tools: Tools, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", "sample", str(runs["AE"])])
    main()
    assert "note: AE: it has no prior: drawn from N(0, I). See lit-vae fit-prior." in capsys.readouterr().err
