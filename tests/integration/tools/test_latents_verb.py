"""``lit-vae latents``: numbers of all images of a split, in a file that belongs to one checkpoint."""

import json

import numpy as np
import pytest
import torch
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of

from lit_vae.metrics import LatentChannels
from lit_vae.tools.measure.latent_moments import latent_report
from lit_vae.tools.runs import find_run


@pytest.mark.parametrize(("family", "split"), [("VAE", "val"), ("AE", "test")])
@pytest.mark.usefixtures("no_grad")
def test_the_numbers_are_those_of_the_split(family: str, split: str, tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy(family)
    shown = tools("latents", run, "--split", split)
    record = json.loads((run / "latents.json").read_text())
    model, data = model_of(run), data_of(run)
    x, y = data.example_batch(len(data.source(split)), split)
    z = model.embed(x, y).double().numpy()
    axes = (0, *range(2, z.ndim))
    np.testing.assert_allclose(record["mean"], z.mean(axes), rtol=1e-5, atol=1e-6)
    variance = z.var(axes)
    if family == "VAE":
        variance += model.encode(x, y).log_var.double().exp().mean(0).numpy()
    np.testing.assert_allclose(record["std"], np.sqrt(variance), rtol=1e-5)
    about = np.sqrt((variance + (z.mean(axes) - z.mean()) ** 2).mean())
    assert record["scale_factor"] == pytest.approx(1.0 / about, rel=1e-5)
    found = find_run(str(run), "best")
    assert record["checkpoint_sha256"] == found.identity
    assert (record["split"], record["num_images"], record["checkpoint"]) == (split, len(x), "best.ckpt")
    assert record["step"] == torch.load(found.checkpoint, weights_only=True)["global_step"]
    assert f"{record['mean'][0]:.4f}" in shown
    assert f"scale_factor {record['scale_factor']:.5f}" in shown
    assert latent_report(found) == record


def test_a_report_belongs_to_one_checkpoint(tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy("CVAE")
    tools("latents", run, "--out", run / "sub" / "other.json")
    assert json.loads((run / "sub" / "other.json").read_text())["num_images"] > 0
    assert latent_report(find_run(str(run), "best")) is None  # neither measured nor left by training
    tools("latents", run)
    assert latent_report(find_run(str(run), "best")) is not None
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "latent_report": {"scale_factor": 2.0}}, path)  # trained further
    assert latent_report(find_run(str(run), "best")) == {"scale_factor": 2.0}


def test_mistakes(fails: Fails, run_copy: RunCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_copy("AE")
    assert "--out x.txt: the numbers are written as JSON." in fails(1, "latents", run, "--out", "x.txt")
    assert "--split: expected" in fails(2, "latents", run, "--split", "all")
    update = LatentChannels.update
    monkeypatch.setattr(LatentChannels, "update", lambda metric, z: update(metric, torch.zeros_like(z)))
    message = fails(1, "latents", run)
    assert "best.ckpt are the same number, 0, and no factor scales them. Train the model further" in message
    assert not (run / "latents.json").exists()
