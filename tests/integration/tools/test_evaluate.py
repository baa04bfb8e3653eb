"""``lit-vae evaluate``: distances between samples and real images, of any run and any prior."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of
from two_stages_helpers import TwoStages

from callbacks.draws import draw_images
from callbacks.sample_quality import measure_samples, real_set
from lit_vae.features import FeatureNetFeatures, PCAFeatures
from lit_vae.images import levels
from lit_vae.metrics import DensityCoverage, FeatureSet, Frechet, Kernel, PrecisionRecall, frechet_distance
from lit_vae.run.loading import identity


def evaluation(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_numbers_are_those_of_the_callback(tools: Tools, run_copy: RunCopy, feature_net: Path, no_grad: None) -> None:
    run = run_copy("CVAE")
    shown = tools("evaluate", run, "--features", feature_net, "--num_images", 120, "--extended", "true", "--seed", 4)
    assert shown.endswith(f"{run / 'evaluation.json'}\n")
    record = evaluation(run)["model"]
    model, data = model_of(run), data_of(run)
    distances = [Frechet(), Kernel(), PrecisionRecall(), DensityCoverage()]
    y, features = torch.arange(120) % 10, FeatureNetFeatures(str(feature_net))
    real = real_set(data, "train", features, distances, y)
    expected, _ = measure_samples(
        lambda y, seed: draw_images(model, y, seed), y, real, data.spec, features, distances, 4
    )
    assert record["metrics"] == {f"test/{name}": pytest.approx(float(value)) for name, value in expected.items()}
    assert set(expected) == {f"{k}_featurenet" for k in ("fd", "kd", "precision", "recall", "density", "coverage")}
    assert f"{record['metrics']['test/fd_featurenet']:.4f}" in shown
    assert record["checkpoint"] == "best.ckpt"
    assert record["checkpoint_sha256"] == identity(run / "checkpoints" / "best.ckpt")
    protocol = record["protocols"]["test/density_featurenet"]
    assert protocol["neighbours"] == 5
    assert (protocol["num_images"], protocol["reference"], protocol["reference_images"]) == (120, "Digits train", 120)
    assert record["protocols"]["test/fd_featurenet"]["reference_images"] == 1437
    assert protocol["labels"] == "each class in turn"
    assert protocol["weights_sha256"] == identity(feature_net)


def test_numbers_are_gathered_for_each_prior_of_one_checkpoint(tools: Tools, run_copy: RunCopy) -> None:
    run = run_copy("VAE")
    few = ["--num_images", 60, "--features", "pca"]
    tools("evaluate", run, *few)
    first = evaluation(run)
    assert set(first) == {"model"}
    tools("fit-prior", run)
    tools("evaluate", run, *few, "--prior", "gmm", "--extended", "true")
    second = evaluation(run)
    assert second["model"] == first["model"]
    assert second["gmm"]["metrics"]["test/fd_pca64"] != first["model"]["metrics"]["test/fd_pca64"]
    tools("evaluate", run, *few, "--extended", "true")
    third = evaluation(run)
    assert set(third["model"]["metrics"]) > set(first["model"]["metrics"])
    assert third["gmm"] == second["gmm"]
    assert third["model"]["metrics"]["test/fd_pca64"] == pytest.approx(first["model"]["metrics"]["test/fd_pca64"])
    tools("fit-prior", run, "--components", 2)
    tools("evaluate", run, *few, "--prior", "gmm")  # of another mixture: nothing of the old one is left beside it
    assert set(evaluation(run)["gmm"]["metrics"]) == {"test/fd_pca64"} < set(third["gmm"]["metrics"])
    assert evaluation(run)["gmm"]["prior_sha256"] == identity(run / "priors" / "gmm.pt")
    assert evaluation(run)["model"] == third["model"]
    tools("evaluate", run, *few, "--checkpoint", "last")
    last = run / "checkpoints" / "last.ckpt"
    assert identity(last) != first["model"]["checkpoint_sha256"]
    assert set(evaluation(run)["model"]["metrics"]) == {"test/fd_pca64"}
    assert evaluation(run)["model"]["checkpoint"] == "last.ckpt"


def test_the_mixture_is_drawn_from(tools: Tools, run_copy: RunCopy, no_grad: None) -> None:
    """With as many images, against the same split and with the same seed it is what fit-prior measures."""
    run = run_copy("AE")
    tools("fit-prior", run, "--seed", 5)
    gmm = json.loads((run / "priors" / "gmm.json").read_text())["metrics"]
    args = ["--features", "pca", "--num_images", 180, "--reference", "test", "--seed", 5]
    tools("evaluate", run, *args)
    tools("evaluate", run, *args, "--prior", "gmm")
    found = evaluation(run)
    assert found["model"]["metrics"]["test/fd_pca64"] == pytest.approx(gmm["test/fd_pca64"], rel=1e-6)
    assert found["gmm"]["metrics"]["test/fd_pca64"] == pytest.approx(gmm["test/fd_pca64_gmm"], rel=1e-6)
    data = data_of(run)
    features = PCAFeatures.fit(levels(x, "dequantized") for x, _ in data.ordered_dataloader("train"))
    protocol = found["gmm"]["protocols"]["test/fd_pca64"]
    assert protocol["weights_sha256"] == features.provenance()["weights_sha256"]


def test_a_prior_of_codes_is_measured_by_the_images_that_stage_1_makes(
    tools: Tools, fails: Fails, two_stages: TwoStages, no_grad: None
) -> None:
    tools("evaluate", two_stages.prior, "--features", "pca", "--num_images", 110, "--seed", 2)
    record = evaluation(two_stages.prior)["model"]
    prior, stage1, images = model_of(two_stages.prior), model_of(two_stages.stage1), data_of(two_stages.stage1)
    first, second = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(2)).tolist()
    y = prior.labels_for(110, None)
    parts = []
    for labels, seed in ((y[:100], first), (y[100:], second)):
        codes = prior.sample_codes(len(labels), labels, generator=torch.Generator().manual_seed(seed))
        parts.append(levels(stage1.decode_codes(codes, labels).mean.clamp(-1, 1), images.spec.values))
    features = PCAFeatures.fit(levels(x, images.spec.values) for x, _ in images.ordered_dataloader("train"))
    fake = features(torch.cat(parts))
    real = torch.cat([features(levels(x, images.spec.values)) for x, _ in images.ordered_dataloader("train")])
    expected = frechet_distance(*(FeatureSet(len(f), f.mean(0), f.T.cov()) for f in (real, fake)))
    assert record["metrics"]["test/fd_pca64"] == pytest.approx(float(expected), rel=1e-5)
    assert record["protocols"]["test/fd_pca64"]["reference"] == "Digits train"
    message = fails(1, "evaluate", two_stages.prior, "--prior", "gmm", "--features", "pca")
    assert "lit-vae evaluate: CodePrior has no --prior gmm. Leave it out." in message


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # its numbers are not to lie in the run of all tests
def test_the_callback_measures_a_prior_of_codes_alike(
    tools: Tools, lightning: Callable[..., None], two_stages: TwoStages, feature_net: Path, tmp_path: Path
) -> None:
    tools("evaluate", two_stages.prior, "--features", feature_net, "--num_images", 30, "--reference", "val")
    features = {"class_path": "lit_vae.features.FeatureNetFeatures", "init_args": {"checkpoint": str(feature_net)}}
    init_args = {"features": features, "num_images": 30, "reference": "val"}
    overlay = tmp_path / "quality.yaml"
    callbacks = [{"class_path": "callbacks.SampleQuality", "init_args": init_args}]
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": callbacks}}))
    best = two_stages.prior / "checkpoints" / "best.ckpt"
    config = two_stages.prior / "config.yaml"
    lightning("test", "--config", config, "--config", overlay, "--ckpt_path", best, "--run_dir", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    expected = evaluation(two_stages.prior)["model"]
    value = expected["metrics"]["test/fd_featurenet"]
    assert record["metrics"]["test/fd_featurenet"] == pytest.approx(value, rel=1e-5)
    protocols = [of["protocols"]["test/fd_featurenet"] for of in (record, expected)]
    assert [protocol.pop("seconds") >= 0 for protocol in protocols] == [True, True]
    assert protocols[0] == protocols[1]


def test_a_model_that_has_diverged_is_refused(fails: Fails, run_copy: RunCopy) -> None:
    run = run_copy("VAE")
    path = run / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["state_dict"] = {
        k: v.fill_(torch.nan) if k.startswith("decoder") else v for k, v in saved["state_dict"].items()
    }
    torch.save(saved, path)
    message = fails(1, "evaluate", run, "--features", "pca", "--num_images", 20)
    broken = [k for k in saved["state_dict"] if k.startswith("decoder")]
    assert f"{path}: {len(broken)} weights are not finite, first {broken[0]}: " in message
    assert not (run / "evaluation.json").exists()


def test_a_mistake_is_one_clear_error(
    fails: Fails, runs: dict[str, Path], feature_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    run = runs["VAE"]
    for args, text in (
        ([run], "Inception: weights of inception: there is no"),
        ([run], "Run  lit-vae prepare inception  where there is internet"),
        ([run, "--features", "vgg"], "--features vgg: give inception, pca, or a file: .pth of Inception,"),
        (
            [run, "--features", tmp_path / "a.pth"],
            f"Inception: weights of inception: there is no {tmp_path / 'a.pth'}.",
        ),
        ([run, "--features", tmp_path / "a.ckpt"], "must be a .ckpt file of a FeatureNet, and there is none."),
        (
            [run, "--num_images", 5, "--features", "pca", "--extended", "true"],
            "lit-vae evaluate: --num_images (=5):"
            " DensityCoverage: neighbours (=5) must be less than the number of images of a set (=5). Take more images",
        ),
        ([run, "--num_images", 1], "lit-vae evaluate: --num_images (=1) must be at least 2."),
        ([run, "--prior", "gmm", "--features", "pca"], "Fit it first: lit-vae fit-prior"),
        ([feature_net, "--features", "pca"], "lit-vae evaluate: FeatureNet draws no images. Give a run of a model"),
    ):
        assert text in fails(1, "evaluate", *args)
    assert not (run / "evaluation.json").exists()
