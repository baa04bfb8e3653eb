"""What is known of a run, from whatever files it has left."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from compare_helpers import DIGITS, SHA, entry, make_run, number, read, write

from lit_vae.tools.compare.gather import best_first, gather, labels
from lit_vae.tools.compare.numbers import format_number, read_curves


def values(entry: Any) -> dict[str, float]:
    return {name: number.value for name, number in entry.numbers.items()}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["runs/ae", "runs/vae/"], ["ae", "vae"]),
        (["runs/a/1", "runs/b/1", "runs/b/2"], ["a/1", "b/1", "2"]),
        (["runs/ae", "runs/ae@gmm"], ["ae", "ae@gmm"]),
        (["runs/vae@drawn", "runs/vae", "runs/b@c"], ["vae@drawn", "vae", "b@c"]),
        (["vae", "old/vae", "a"], ["{cwd}/vae", "old/vae", "a"]),
        ([".", ".."], ["{cwd}", "{above}"]),
        (["ae/checkpoints/best.ckpt", "ae/checkpoints/last.ckpt"], ["best", "last"]),
        (["ae/checkpoints/best.ckpt", "vae/checkpoints/best.ckpt"], ["ae/best", "vae/best"]),
    ],
)
def test_a_label_is_the_shortest_end_of_a_path_that_no_other_has(runs: list[str], expected: list[str]) -> None:
    assert labels(runs) == [label.format(cwd=Path.cwd().name, above=Path.cwd().parent.name) for label in expected]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": "finished", "step": 12870}, "finished at step 12,870"),
        ({"status": "interrupted", "step": 3}, "interrupted at step 3"),
        ({"status": "failed", "step": 3, "error": "NaNGuard: loss"}, "failed at step 3: NaNGuard: loss"),
        ({"status": "running", "step": 4, "updated": "2026-01-02T03:04:05Z"},
         "running, or killed; last heard of at step 4, 2026-01-02T03:04:05Z"),
        (None, "unknown: it has no run.json"),
    ],
)  # fmt: skip
def test_what_became_of_a_run(tmp_path: Path, record: dict[str, Any] | None, expected: str) -> None:
    assert read(make_run(tmp_path, "run", run=record)).status == expected


def test_curves_of_a_file_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,train/loss,val/loss\n9,0,3.0,\n19,0,2.0,2.5\n29,1,nan,2.25\n39,1,1.5,2.\n4")
    assert read_curves(path) == {
        "train/loss": [(9, 3.0), (19, 2.0), (39, 1.5)],
        "val/loss": [(19, 2.5), (29, 2.25), (39, 2.0)],
    }
    assert read_curves(tmp_path / "none.csv") == {}


def test_without_a_test_the_last_validations_count_and_are_said_to(tmp_path: Path) -> None:
    csv = "step,val/psnr,val/fd\n9,20.0,5.0\n19,21.0,\n"
    run = read(make_run(tmp_path, "run", csv=csv, run={"status": "running", "protocols": {"val/fd": {"n": 3}}}))
    assert values(run) == {"psnr": 21.0, "fd": 5.0}
    assert {number.split for number in run.numbers.values()} == {"val"}
    assert run.numbers["fd"].protocol == {"n": 3}
    assert "it was not tested: its numbers are those of its last validations, marked (val)" in run.notes


def test_test_numbers_are_never_filled_up_with_those_of_validation(tmp_path: Path) -> None:
    run = read(make_run(tmp_path, "run", {"psnr": 22.0, "elbo": None}, csv="step,val/psnr,val/ssim\n9,20.0,0.5\n"))
    assert values(run) == {"psnr": 22.0}
    assert run.numbers["psnr"].split == "test"
    assert not any("not tested" in note for note in run.notes)


def test_what_a_run_cost_leaves_the_discriminator_out(tmp_path: Path) -> None:
    record = {"status": "finished", "seconds": 61.5, "peak_memory_bytes": 2**30}
    run = read(make_run(tmp_path, "run", run={**record, "parameters": {"encoder": 10, "decoder": 5, "realism": 1000}}))
    assert values(run) == {"seconds": 61.5, "parameters": 15.0, "peak_memory_bytes": 2.0**30}


def test_samples_of_the_mixture_have_its_numbers_and_none_of_the_model_s_prior(tmp_path: Path) -> None:
    numbers = {"psnr": 20.0, "fid": 90.0, "elbo": -3.0, "rate": 5.0, "bits_per_dim": 4.0, "distortion": 1.0}
    path = make_run(tmp_path, "run", numbers)
    samples = {"n": 180, "seconds": 3.0}
    measured = {"test/fd_pca64": 30.0, "test/fd_pca64_gmm": 2.0}
    bound = {"bound_nats": {"rate": 4.0, "gain": 1.0, "elbo": -2.0}, "bound_replicates": {"elbo": [-2.0] * 20}}
    record = {"checkpoint": "best.ckpt", "samples": samples, "metrics": measured, **bound}
    write(Path(path) / "priors" / "gmm.json", record)
    of_model = {"metrics": {"test/kid": 0.5}, "protocols": {"test/kid": {"subsets": 10}}}
    write(Path(path) / "evaluation.json", {"model": of_model, "gmm": {"metrics": {"test/kid": 0.25}}})
    own, mixture = read(path), read(f"{path}@gmm")
    assert values(own) == {**numbers, "fd_pca64": 30.0, "fd_pca64_gmm": 2.0, "kid": 0.5}
    assert own.numbers["kid"].protocol == {"subsets": 10}
    assert own.numbers["fd_pca64"].protocol == samples
    assert values(mixture) == {
        "psnr": 20.0, "distortion": 1.0, "rate": 4.0, "elbo": -2.0, "fd_pca64": 2.0, "kid": 0.25,
    }  # fmt: skip
    assert mixture.numbers["elbo"].half_width == 0.0
    assert mixture.numbers["rate"].half_width is None
    assert any("samples, rate and elbo are of the mixture" in note for note in mixture.notes)


def test_draws_have_their_own_reconstruction_numbers_and_the_model_s_likelihood(tmp_path: Path) -> None:
    numbers = {"psnr": 24.0, "ssim": 0.9, "psnr_drawn": 18.0, "fid": 90.0, "elbo": -3.0}
    path = make_run(tmp_path, "run", numbers)
    own, drawn = read(path), read(f"{path}@drawn")
    assert values(own) == {"psnr": 24.0, "ssim": 0.9, "fid": 90.0, "elbo": -3.0}
    assert values(drawn) == {"psnr": 18.0, "elbo": -3.0}
    assert any("draws from p(x|z)" in note for note in drawn.notes)


def test_a_variant_that_there_is_not_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    path = make_run(tmp_path, "run", {"psnr": 24.0})
    with pytest.raises(
        ValueError,
        match=r"run@drwan: there is no @drwan of a run\. Give one of RUN@gmm, RUN@flow, RUN@vamp, RUN@vae, RUN@drawn\.",
    ):
        read(f"{path}@drwan")


def test_what_is_known_of_the_images(tmp_path: Path) -> None:
    tested = read(make_run(tmp_path, "tested", {"psnr": 1.0}))
    validated = read(make_run(tmp_path, "validated", csv="step,val/psnr\n9,1.0\n"))
    common = {"data": "Digits", "image_shape": [1, 8, 8], "data_seed": 0, "dequantize": True}  # no batch size
    assert tested.numbers["psnr"].data == {**common, "values": "dequantized", "num_images": 180}
    assert validated.numbers["psnr"].data == common
    recorded = {"data_seed": 0, "data_fingerprint": "f" * 64}
    seed_1 = {**DIGITS, "init_args": {**DIGITS["init_args"], "seed": 1}}  # type: ignore[dict-item]
    newer = read(make_run(tmp_path, "newer", {"psnr": 1.0}, data=seed_1, of=recorded))
    assert newer.numbers["psnr"].data == tested.numbers["psnr"].data | recorded  # what was recorded counts


def test_a_prior_has_the_reconstructions_of_its_stage_1_and_its_own_rate(tmp_path: Path) -> None:
    def cost(seconds: float, parameters: int) -> dict[str, Any]:
        return {"status": "finished", "seconds": seconds, "parameters": {"all": parameters}}

    numbers = {"psnr": 25.0, "distortion": -20.0, "loss": 1.0, "latent_noise": 0.25}
    stage1 = make_run(tmp_path, "stage1", numbers, "VQVAE", run=cost(100.0, 1000), checkpoints={"best": {}})
    of = {"stage1": {"path": f"{stage1}/checkpoints/best.ckpt", "sha256": SHA}}
    codes = {"class_path": "lit_vae.data.Codes", "init_args": {"root": "codes", "collapse_threshold": 0.1}}
    record = {"data": "Codes", "image_shape": None, "values": None}
    own = {"rate": 30.0, "elbo": -10.0, "loss": 30.0}
    path = make_run(tmp_path, "prior", own, "CodePrior", codes, cost(20.0, 500), checkpoints={"best": of}, of=record)
    prior = read(path)
    assert values(prior) == {
        "psnr": 25.0, "distortion": -20.0, "loss": 30.0, "rate": 30.0, "elbo": -10.0, "seconds": 120.0,
        "parameters": 1500.0, "latent_noise": 0.25,
    }  # fmt: skip
    assert prior.numbers["seconds"].words == "0:00:20 + 0:01:40"
    assert prior.numbers["parameters"].words == "500 + 1,000"
    assert prior.numbers["elbo"].data == prior.numbers["psnr"].data  # which is of images
    assert prior.numbers["psnr"].data["data"] == "Digits"
    assert any(f"of its stage 1, {stage1}" in note for note in prior.notes)


def test_a_prior_whose_stage_1_is_gone_says_so(tmp_path: Path) -> None:
    gone = {"stage1": {"path": str(tmp_path / "gone.ckpt"), "sha256": SHA}}
    prior = read(make_run(tmp_path, "prior", {"rate": 1.0}, "CodePrior", checkpoints={"last": gone}))
    assert prior.stage1 is None
    assert values(prior) == {"rate": 1.0}
    assert f"its stage 1 is not at {tmp_path / 'gone.ckpt'}, so there are no images and no numbers of it" in prior.notes


def test_the_other_checkpoint_or_none_is_better_than_no_comparison(tmp_path: Path) -> None:
    only_last = read(make_run(tmp_path, "last", checkpoints={"last": {}}))
    assert only_last.run is not None
    assert only_last.run.checkpoint.name == "last.ckpt"
    assert "it has no best.ckpt: what is shown is of last.ckpt" in only_last.notes
    both = make_run(tmp_path, "both", checkpoints={"last": {}, "best": {"other": 1}})
    for name in ("best", "last"):
        run = read(both, name).run
        assert run is not None
        assert run.checkpoint.stem == name
    none = read(make_run(tmp_path, "none", csv="step,val/loss\n1,2\n"))
    assert none.run is None
    assert "it has no checkpoint yet" in none.notes


def test_numbers_of_other_weights_than_the_images_are_said(tmp_path: Path) -> None:
    path = make_run(tmp_path, "run", {"psnr": 1.0}, checkpoints={"best": {}}, of={"checkpoint": "runs/x/last.ckpt"})
    sha = hashlib.sha256((Path(path) / "checkpoints" / "best.ckpt").read_bytes()).hexdigest()
    warning = (
        f"the numbers of test_metrics.json are of last.ckpt (SHA-256 {SHA[:12]}), the images of best.ckpt ({sha[:12]})"
    )
    assert warning in read(path).notes
    write(Path(path) / "test_metrics.json", {"checkpoint": "last.ckpt", "checkpoint_sha256": sha, "metrics": {}})
    assert not any("the images of" in note for note in read(path).notes)


def test_mistakes_are_named_all_at_once(tmp_path: Path) -> None:
    good, empty = make_run(tmp_path, "good"), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"(?s)there is no run nothing\. .*empty: it holds no run") as e:
        gather([good, "nothing", str(empty)], "best")
    assert "good" not in str(e.value)
    with pytest.raises(ValueError, match=r"one run is nothing to compare\. Give two or more, or RUN and RUN@gmm\."):
        gather([good], "best")
    with pytest.raises(ValueError, match=r"given twice\. Give each run once\."):
        gather([good, f"{tmp_path}/./empty/../good"], "best")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("psnr", 22.3, "22.300"),
        ("mse", 0.0300309, "0.030031"),
        ("active_units", 16.0, "16"),
        ("loss", 0.0, "0"),
        ("loss", -123456.7, "-1.235e+05"),
        ("elbo", -12365.33, "-12365"),
        ("loss", 0.00012345, "1.234e-04"),
        ("seconds", 3725.4, "1:02:05"),
        ("parameters", 1346337.0, "1,346,337"),
        ("peak_memory_bytes", 1.5 * 2**30, "1.50 GiB"),
    ],
)
def test_numbers_are_shown_in_their_units(name: str, value: float, expected: str) -> None:
    assert format_number(name, value) == expected


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    path = Path(make_run(tmp_path, "run", {"psnr": 1.0}))
    (path / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"run/config\.yaml: line 2, column 1: not YAML: "):
        read(str(path))


def test_options_that_change_no_image_are_none_of_the_data(tmp_path: Path) -> None:
    other = {**DIGITS, "init_args": {**DIGITS["init_args"], "batch_size": 1, "root": "elsewhere"}}  # type: ignore[dict-item]
    runs = [read(make_run(tmp_path, name, {"psnr": 1.0}, data=data)) for name, data in (("a", None), ("b", other))]
    assert runs[0].numbers["psnr"].data == runs[1].numbers["psnr"].data


def test_runs_are_sorted_by_the_best_of_the_numbers_that_fit() -> None:
    vae = entry("vae", {"nll_iw128": number(86.0), "elbo": number(-90.0), "psnr": number(20.0), "rate": number(25.0)})
    pixelcnn = entry("pixelcnn", {"nll": number(81.0)})
    both = entry("both", {"nll_iw128": number(84.0), "nll_iw5000": number(80.0), "rate": number(12.0)})
    ae = entry("ae", {"psnr": number(21.0)})
    runs = [ae, vae, pixelcnn, both]

    def order(pattern: str) -> list[str]:
        return [run.label for run in best_first(runs, pattern)]

    assert order("nll*") == ["both", "pixelcnn", "vae", "ae"]
    assert order("psnr") == ["ae", "vae", "pixelcnn", "both"]  # runs without the number keep their order
    assert order("rate") == ["both", "vae", "ae", "pixelcnn"]  # neither is better: the smallest comes first
    with pytest.raises(ValueError, match=r"--sort_by fid: no run has this number. Give one of psnr, elbo, nll,"):
        best_first(runs, "fid")
