"""``lit-vae encode`` of a model with a Gaussian posterior."""

from pathlib import Path

import pytest
import torch
from tools_helpers import RunCopy, Tools, data_of, model_of

from lit_vae.data import Latents
from lit_vae.tools.runs import find_run


@pytest.mark.usefixtures("no_grad")
def test_latents_lie_with_their_run_and_name_its_checkpoint(tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy("CVAE")
    shown = tools("encode", run, "--shard_size", 500)
    assert shown.endswith(f"{run / 'latents'}\n")
    assert "train  1437 images  std of a channel " in shown
    assert len(list((run / "latents").glob("train-*.safetensors"))) == 3
    latents, model, images = Latents(str(run / "latents")), model_of(run), data_of(run)
    assert [need.problem() for need in latents.needs()] == [None, None]
    spec, found = latents.spec, find_run(str(run), "best")
    assert (spec.checkpoint, spec.checkpoint_sha256) == (str(found.checkpoint), found.identity)
    assert (spec.shape, spec.image_shape, spec.num_classes) == ((8,), images.spec.shape, 10)
    assert spec.model == f"{type(model).__module__}.CVAE"
    assert (spec.bits_per_dim, spec.has_meaningful_likelihood) == ((64, 7.0), True)
    for split, n in (("train", 1437), ("val", 180), ("test", 180)):
        x, y = images.example_batch(n, split)
        stored = latents.open_split(split).read(torch.arange(n))
        q = model.encode(x, y)
        torch.testing.assert_close(stored.mean, q.mean)
        torch.testing.assert_close(stored.log_var, q.log_var)
        assert torch.equal(stored.y, y)


def test_an_ae_has_latents_without_an_entropy(tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy("AE")
    shown = tools("encode", run)
    assert "train  1437 images  std of a channel " in shown
    assert "entropy" not in shown
    latents = Latents(str(run / "latents"))
    assert latents.spec.entropy is None
    assert (latents.spec.bits_per_dim, latents.spec.has_meaningful_likelihood) == ((64, 7.0), False)
    x, y = data_of(run).example_batch(180, "val")
    with torch.no_grad():
        torch.testing.assert_close(latents.open_split("val").read(torch.arange(180)).mean, model_of(run).embed(x, y))


def test_mirror_images_are_encoded_if_asked_for(tools: Tools, run_copy: RunCopy, tmp_path: Path) -> None:
    shown = tools("encode", run_copy("VAE"), "--out", tmp_path / "latents", "--mirrors", "true")
    assert "train  1437 images and their mirror images" in shown
    latents = Latents(str(tmp_path / "latents"))
    assert (latents.open_split("train").mirrors, latents.open_split("val").mirrors) == (True, False)
