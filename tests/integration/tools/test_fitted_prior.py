"""``lit-vae fit-prior``: what it fits, keeps and measures, and to what it belongs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of, pixels
from torch import distributions as td

from callbacks.panel import decode_means, prior_latents
from lit_vae.features import PCAFeatures
from lit_vae.images import levels
from lit_vae.metrics import FeatureSet, frechet_distance
from lit_vae.noise import FIXED, Draws
from lit_vae.tools.priors.fit import FITS
from lit_vae.tools.priors.fitted import load_prior
from lit_vae.tools.priors.latents import Latents
from lit_vae.tools.priors.vamp import fit_vamp
from lit_vae.tools.runs import find_run


@pytest.mark.parametrize(("family", "groups", "components"), [("VAE", 1, 10), ("CVAE", 10, 1), ("AE", 1, 10)])
def test_a_fitted_prior_is_kept_with_the_run_and_sampled(
    tools: Tools, run_copy: RunCopy, no_grad: None, family: str, groups: int, components: int
) -> None:
    run = run_copy(family)
    shown = tools("fit-prior", run)
    assert {path.name for path in (run / "priors").iterdir()} == {"gmm.pt", "gmm.json"}
    first = (run / "priors" / "gmm.json").read_text()
    record = json.loads(first)
    for name in ("test/fd_pca64", "test/fd_pca64_gmm"):
        assert f"{record['metrics'][name]:.4f}" in shown
    assert record["samples"]["num_images"] == 180
    assert record["mixture"]["num_images"] == 1437

    mixture = load_prior(find_run(str(run), "best"), model_of(run))
    d = 32 if family == "AE" else 8
    assert mixture.means.shape == (groups, components, d)
    z, y = Latents(model_of(run), data_of(run), "train")(0)
    assert record["mixture"]["log_density_nats"]["train"] == pytest.approx(float(mixture.log_prob(z, y).mean()))
    for group in range(groups):  # EM keeps the mean of the data
        of_group = z[y == group] if groups > 1 else z
        torch.testing.assert_close(mixture.weights[group] @ mixture.means[group], of_group.mean(0))

    assert tools("sample", run, "--prior", "gmm").endswith("sheets/sample_gmm.png\n")
    tools("sample", run)
    of_mixture, of_model = (pixels(run / "sheets" / f"{name}.png") for name in ("sample_gmm", "sample"))
    assert of_mixture.shape == of_model.shape
    assert not np.array_equal(of_mixture, of_model)

    tools("fit-prior", run)
    assert (run / "priors" / "gmm.json").read_text() == first


def test_the_recorded_distances_are_those_of_the_draws(tools: Tools, run_copy: RunCopy, no_grad: None) -> None:
    run = run_copy("AE")
    tools("fit-prior", run, "--seed", 5, "--components", 2, "--covariance", "diag", "--num_images", 500)
    record = json.loads((run / "priors" / "gmm.json").read_text())
    model, data = model_of(run), data_of(run)
    features = PCAFeatures.fit(levels(x, "dequantized") for x, _ in data.ordered_dataloader("train"))

    def moments(x: torch.Tensor) -> FeatureSet:
        f = features(levels(x, "dequantized"))
        return FeatureSet(len(f), f.mean(0), f.T.cov())

    test = data.example_batch(180, "test")
    mixture = load_prior(find_run(str(run), "best"), model_of(run))
    nobody = torch.full((180,), -1)
    seeds = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(5)).tolist()  # of 100 and of 80 images
    chunks = list(zip(nobody.split(100), seeds, strict=True))
    draws = {
        "test/fd_pca64": [prior_latents(model, y, 1.0, seed).flatten(1) for y, seed in chunks],
        "test/fd_pca64_gmm": [mixture.sample(y, 1.0, seed).float() for y, seed in chunks],
    }
    for name, parts in draws.items():
        z = torch.cat(parts).unflatten(1, model.latent_shape)
        expected = frechet_distance(moments(test.x), moments(decode_means(model, z, nobody)))
        assert record["metrics"][name] == pytest.approx(float(expected), rel=1e-5)
    floor = frechet_distance(moments(test.x), moments(data.example_batch(180, "train").x))
    assert record["samples"]["fd_pca64_of_training_images"] == pytest.approx(float(floor), rel=1e-5)
    assert record["mixture"]["num_images"] == 500


@pytest.mark.parametrize(("family", "groups", "d"), [("CVAE", 10, 8), ("AE", 1, 32)])
@pytest.mark.slow
def test_a_flow_is_fitted_kept_and_sampled_beside_the_mixture(
    tools: Tools, run_copy: RunCopy, no_grad: None, family: str, groups: int, d: int
) -> None:
    run = run_copy(family)
    tools("fit-prior", run)
    shown = tools("fit-prior", run, "--prior", "flow", "--steps", 30)
    assert {path.name for path in (run / "priors").iterdir()} == {"gmm.pt", "gmm.json", "flow.pt", "flow.json"}
    record = json.loads((run / "priors" / "flow.json").read_text())
    assert record["flow"]["steps"] == 30
    for name in ("test/fd_pca64", "test/fd_pca64_flow"):
        assert f"{record['metrics'][name]:.4f}" in shown
    flow = load_prior(find_run(str(run), "best"), model_of(run), "flow")
    assert flow.size == (groups, d)
    z, y = Latents(model_of(run), data_of(run), "train")(0)
    assert record["flow"]["log_density_nats"]["train"] == pytest.approx(float(flow.log_prob(z, y).mean()))
    assert tools("sample", run, "--prior", "flow").endswith("sheets/sample_flow.png\n")


def test_a_fitted_prior_has_an_honest_bound(tools: Tools, run_copy: RunCopy, no_grad: None) -> None:
    """Rates and distortion are those of the test images, for the flow and the model's prior at the same draws."""
    run = run_copy("VAE")
    tools("fit-prior", run, "--prior", "flow", "--steps", 30)
    worth = json.loads((run / "priors" / "flow.json").read_text())["bound_nats"]
    model, data = model_of(run), data_of(run)
    x, y = data.example_batch(180, "test")
    q = model.encode(x, y)
    z = q.rsample(1, Draws(0, FIXED, torch.arange(180)))
    flow = load_prior(find_run(str(run), "best"), model, "flow")
    expected = (q.log_prob(z)[0].double() - flow.log_prob(z[0], y)).mean()
    assert worth["rate"] == pytest.approx(float(expected), rel=1e-5)
    assert worth["rate_of_model"] == pytest.approx(float(q.kl(model.prior(y)).mean()), abs=0.5)
    assert worth["distortion"] == pytest.approx(float(-model.decode(z[0], y).log_prob(x).mean()), rel=1e-5)
    assert worth["elbo"] == pytest.approx(-worth["rate"] - worth["distortion"], rel=1e-12)
    assert tools("sample", run, "--prior", "flow").endswith("sheets/sample_flow.png\n")


def test_a_second_stage_has_a_bound_that_is_called_one(tools: Tools, run_copy: RunCopy, no_grad: None) -> None:
    run = run_copy("VAE")
    tools("fit-prior", run, "--prior", "vae", "--steps", 30)
    record = json.loads((run / "priors" / "vae.json").read_text())
    model, data = model_of(run), data_of(run)
    stage = load_prior(find_run(str(run), "best"), model, "vae")
    bounds = record["second_stage"]["log_density_bound_nats"]
    assert "log_density_nats" not in record["second_stage"]
    assert bounds["test"] == pytest.approx(float(stage.log_prob(*Latents(model, data, "test")(0)).mean()))
    x, y = data.example_batch(180, "test")
    q = model.encode(x, y)
    z = q.rsample(1, Draws(0, FIXED, torch.arange(180)))
    rates = q.log_prob(z)[0].double() - stage.log_prob(z[0], y)
    gains = (q.log_prob(z) - model.prior(y).log_prob(z))[0] - rates
    worth = record["bound_nats"]
    assert worth["rate"] == pytest.approx(float(rates.mean()), rel=1e-5)
    assert worth["gain"] == pytest.approx(float(gains.mean()), rel=1e-4)
    of_groups = torch.stack([gains[group::20].mean() for group in range(20)])
    interval = 2.093 * float(of_groups.std()) / 20**0.5  # groups of equal size: the standard error of their mean
    assert worth["gain_half_width_95"] == pytest.approx(interval, rel=1e-4)
    assert tools("sample", run, "--prior", "vae").endswith("sheets/sample_vae.png\n")


def test_a_vamp_prior_is_fitted_kept_and_sampled(tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy("VAE")
    tools("fit-prior", run, "--prior", "vamp", "--components", 20, "--steps", 3)
    assert load_prior(find_run(str(run), "best"), model_of(run), "vamp").size == (1, 8)
    record = json.loads((run / "priors" / "vamp.json").read_text())["VampPrior"]
    assert (record["components"], record["steps"], record["num_images"]) == (20, 3, 1437)
    assert tools("sample", run, "--prior", "vamp").endswith("sheets/sample_vamp.png\n")


def test_a_vamp_prior_learns_pseudo_inputs_and_leaves_its_model_alone(runs: dict[str, Path], no_grad: None) -> None:
    """They start as training images."""
    model, data = model_of(runs["VAE"]), data_of(runs["VAE"])
    model.encoder.last_layer[:8] *= 20.0  # the run is short: all its posteriors are near N(0, I)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train = Latents(model, data, "train")
    z, y = train(1)
    q = model.encode(*data.example_batch(20, "train"))
    start = td.MixtureSameFamily(td.Categorical(torch.ones(20)), td.Independent(td.Normal(q.mean, q.std), 1))
    fitted = fit_vamp(train, 20, 60, 0)
    assert (fitted.log_prob(z, y) - start.log_prob(z.float())).mean() > 0.5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("prior", "noun"), [("vae", "second stage"), ("vamp", "VampPrior")])
def test_a_run_without_a_distribution_of_latents_is_refused(
    fails: Fails, runs: dict[str, Path], prior: str, noun: str
) -> None:
    assert fails(1, "fit-prior", runs["AE"], "--prior", prior) == (
        f"error: lit-vae fit-prior: --prior {prior}: AE has no posterior q(z|x) of one latent, and a {noun} needs it."
        " Give --prior gmm or --prior flow.\n"
    )


def test_a_latent_map_has_no_second_stage(runs: dict[str, Path]) -> None:
    model = model_of(runs["VAE"])
    model.latent_shape = (2, 2, 2)
    with pytest.raises(ValueError) as error:
        FITS["vae"](Latents(model, data_of(runs["VAE"]), "train"), 0)
    assert str(error.value) == (
        "lit-vae fit-prior: --prior vae: the latent is a map [2, 2, 2], and a second stage takes a vector. Give --prior"
        " gmm or --prior flow."
    )


def test_what_is_of_another_prior_is_refused(fails: Fails, run_copy: RunCopy) -> None:
    run = run_copy("VAE")
    message = fails(1, "fit-prior", run, "--prior", "flow", "--components", 3)
    assert "lit-vae fit-prior: --components is for --prior gmm, not flow. Leave it out." in message
    message = fails(1, "sample", run, "--prior", "flow")
    missing = f"there is no {run / 'priors' / 'flow.pt'}. Fit it first: lit-vae fit-prior {run} --prior flow\n"
    assert f"--prior flow: {missing}" in message


def test_a_prior_is_fitted_to_draws_of_the_posterior(runs: dict[str, Path], no_grad: None) -> None:
    for family in ("VAE", "AE"):
        model, data = model_of(runs[family]), data_of(runs[family])
        x, y = data.example_batch(180, "test")
        z, labels = Latents(model, data, "test")(0)
        assert torch.equal(labels, y)
        if family == "AE":
            torch.testing.assert_close(z, model.embed(x, y).flatten(1).double())
            continue
        posterior = model.encode(x, y)
        eps = (z - posterior.mean) / posterior.std
        assert abs(eps.mean()) < 4 / eps.numel() ** 0.5
        assert abs(eps.square().mean() - 1) < 4 * (2 / eps.numel()) ** 0.5


def test_a_prior_belongs_to_one_checkpoint(tools: Tools, fails: Fails, run_copy: RunCopy) -> None:
    run = run_copy("VAE")
    message = fails(1, "sample", run, "--prior", "gmm")
    assert f"there is no {run / 'priors' / 'gmm.pt'}. Fit it first: lit-vae fit-prior {run}\n" in message
    tools("fit-prior", run, "--checkpoint", "last")
    tools("sample", run, "--prior", "gmm", "--checkpoint", "last")
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes() + b" ")  # the run went on
    message = fails(1, "sample", run, "--prior", "gmm", "--checkpoint", "last")
    assert f"was fitted to another checkpoint (last.ckpt, as it was then) than {last}." in message
    assert f"Fit it again: lit-vae fit-prior {run} --checkpoint last\n" in message
    message = fails(1, "sample", best, "--prior", "gmm")
    assert f"Fit it again: lit-vae fit-prior {best}\n" in message
