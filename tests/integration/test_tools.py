"""``lit-vae`` as a user meets it, on small runs of the quickstart: what it writes, and what it says of mistakes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from callbacks import ClassSheet, Interpolations, Reconstructions, Samples, Traversals
from callbacks.drawing import arrange, sheet
from callbacks.panel import decode_means, prior_latents
from lit_vae.cli import main as lightning_main
from lit_vae.images import to_uint8
from lit_vae.metrics.frechet import PCAFeatures, frechet_distance
from lit_vae.tools import main
from lit_vae.tools.prior import latents, load_prior
from lit_vae.tools.runs import find_run, load_data, load_model

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
Tools = Callable[..., str]


def config_of(family: str) -> dict[str, Any]:
    """The quickstart's configuration, small, for another family: a CVAE with averaged weights, an AE with a map."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 6, "check_val_every_n_epoch": 1, "callbacks": []}
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    model = config["model"]["init_args"]
    if family == "CVAE":
        config["trainer"]["callbacks"] = [{"class_path": "callbacks.EMA"}]
        model["num_classes"] = 10
        prior = {"class_path": "lit_vae.priors.ClassConditionalNormal", "init_args": {"shape": [8], "num_classes": 10}}
        model["prior"] = prior
    if family == "AE":
        del model["prior"], model["objective"]
        model["latent_shape"] = [2, 4, 4]
        for name in ("encoder", "decoder"):
            init_args = {"width": 8, "multipliers": [1, 1]}
            model[name] = {"class_path": f"lit_vae.networks.Conv{name.title()}", "init_args": init_args}
    config["model"]["class_path"] = f"lit_vae.models.{family}"
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each family; nobody writes into them but below ``sheets``."""
    folder = tmp_path_factory.mktemp("runs")
    trained = {}
    with pytest.MonkeyPatch.context() as patch:
        for family in ("VAE", "CVAE", "AE"):
            config, trained[family] = folder / f"{family}.yaml", folder / family
            config.write_text(yaml.safe_dump(config_of(family)))
            patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(config), "--run_dir", str(folder / family)])
            lightning_main()
    return trained


@pytest.fixture
def run_copy(runs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a run, to write into."""
    return lambda family: Path(shutil.copytree(runs[family], tmp_path / family))


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tools:
    """The ``lit-vae`` command, run in this process; returns what it prints."""

    def run(*args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The ``lit-vae`` command that must fail with this code; returns its message."""

    def run(code: int, *args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert exit_info.value.code == code
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def model_of(run: Path) -> Any:
    return load_model(find_run(str(run), "best"), CPU)


def data_of(run: Path) -> Any:
    return load_data(find_run(str(run), "best"), model_of(run), None, [])


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


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


def test_images_are_of_the_split_that_is_asked_for(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    data = data_of(runs["VAE"])
    for split in ("train", "val", "test"):
        out = tmp_path / f"{split}.png"
        tools("reconstruct", runs["VAE"], "--n", 1, "--split", split, "--out", out)
        shown = pixels(out)[2:66, 2:66][::8, ::8]  # enlarged 8 times, behind a margin of 2
        assert np.array_equal(shown, to_uint8(data.example_batch(1, split).x)[0, 0].numpy())
        assert Image.open(out).text["Description"].startswith(f"{split.title()} images (upper row")  # type: ignore[attr-defined]


def test_last_and_best_are_different_checkpoints(tools: Tools, run_copy: Callable[[str], Path], tmp_path: Path) -> None:
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
    assert "note: AE has no prior: drawn from N(0, I). See lit-vae fit-prior." in capsys.readouterr().err


@pytest.mark.parametrize(("family", "groups", "components"), [("VAE", 1, 10), ("CVAE", 10, 1), ("AE", 1, 10)])
def test_a_fitted_prior_is_kept_with_the_run_and_sampled(
    tools: Tools, run_copy: Callable[[str], Path], no_grad: None, family: str, groups: int, components: int
) -> None:
    run = run_copy(family)
    shown = tools("fit-prior", run)
    assert {path.name for path in (run / "priors").iterdir()} == {"gmm.pt", "gmm.json"}
    first = (run / "priors" / "gmm.json").read_text()
    record = json.loads(first)
    for name in ("test/fd_pca64", "test/fd_pca64_gmm"):
        assert f"{record['metrics'][name]:.4f}" in shown
    assert record["samples"]["n"] == 180
    assert record["mixture"]["num_images"] == 1437

    mixture = load_prior(find_run(str(run), "best"))
    d = 32 if family == "AE" else 8
    assert mixture.means.shape == (groups, components, d)
    z, y = latents(model_of(run), data_of(run), "train", None, 0)
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


def test_the_recorded_distances_are_those_of_the_draws(
    tools: Tools, run_copy: Callable[[str], Path], no_grad: None
) -> None:
    run = run_copy("AE")
    tools("fit-prior", run, "--seed", 5, "--components", 2, "--covariance", "diag", "--num_images", 500)
    record = json.loads((run / "priors" / "gmm.json").read_text())
    model, data = model_of(run), data_of(run)
    features = PCAFeatures.fit(data.ordered_dataloader("train"))

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f = features(x)
        return f.mean(0), f.T.cov()

    test = data.example_batch(180, "test")
    mixture = load_prior(find_run(str(run), "best"))
    draws = {
        "test/fd_pca64": prior_latents(model, test.y, 1.0, 5),
        "test/fd_pca64_gmm": mixture.sample(test.y, 1.0, 5).float().unflatten(1, model.latent_shape),
    }
    for name, z in draws.items():
        expected = frechet_distance(*moments(test.x), *moments(decode_means(model, z, test.y)))
        assert record["metrics"][name] == pytest.approx(float(expected), rel=1e-5)
    floor = frechet_distance(*moments(test.x), *moments(data.example_batch(180, "train").x))
    assert record["samples"]["fd_pca64_of_training_images"] == pytest.approx(float(floor), rel=1e-5)
    assert record["mixture"]["num_images"] == 500


def test_a_prior_is_fitted_to_draws_of_the_posterior(runs: dict[str, Path], no_grad: None) -> None:
    for family in ("VAE", "AE"):
        model, data = model_of(runs[family]), data_of(runs[family])
        x, y = data.example_batch(180, "test")
        z, labels = latents(model, data, "test", None, 0)
        assert torch.equal(labels, y)
        if family == "AE":
            torch.testing.assert_close(z, model.embed(x, y).flatten(1).double())
            continue
        posterior = model.encode(x, y)
        eps = (z - posterior.mean) / posterior.std
        assert abs(eps.mean()) < 4 / eps.numel() ** 0.5
        assert abs(eps.square().mean() - 1) < 4 * (2 / eps.numel()) ** 0.5


def test_a_prior_belongs_to_one_checkpoint(
    tools: Tools, fails: Callable[..., str], run_copy: Callable[[str], Path]
) -> None:
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


def test_data_elsewhere(
    tools: Tools, fails: Callable[..., str], run_copy: Callable[[str], Path], tmp_path: Path
) -> None:
    run, images = run_copy("VAE"), tmp_path / "images"
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["datamodule_hyper_parameters"] = {
        "_class_path": "lit_vae.data.ImageFolder", "root": str(tmp_path / "moved"), "size": 8, "channels": 1,
        "num_val": 2, "num_test": 5, "dequantize": True, "num_workers": 0,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }  # fmt: skip
    torch.save(content, run / "checkpoints" / "best.ckpt")
    message = fails(1, "reconstruct", run, "--n", 5)
    assert f"ImageFolder: root (={str(tmp_path / 'moved')!r}) is not a folder." in message
    assert "--data_root" in message
    tools("sample", run)  # needs no data
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(images / f"{i}.png")
    tools("reconstruct", run, "--n", 5, "--data_root", images)


def test_nothing_is_downloaded(fails: Callable[..., str], run_copy: Callable[[str], Path], tmp_path: Path) -> None:
    run = run_copy("VAE")
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["image_shape"] = [1, 28, 28]
    content["state_dict"] = {  # an MNIST run of the same networks
        name: torch.zeros(256, 784) if name == "encoder.layers.0.weight"
        else torch.zeros(784, 256) if value.shape == (64, 256)
        else torch.zeros(784) if value.shape == (64,) else value
        for name, value in content["state_dict"].items()
    }  # fmt: skip
    content["datamodule_hyper_parameters"] = {
        "_class_path": "lit_vae.data.MNIST", "root": str(tmp_path / "data"), "dequantize": True, "download": True,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }  # fmt: skip
    torch.save(content, run / "checkpoints" / "best.ckpt")
    message = fails(1, "reconstruct", run)
    assert f"MNIST: root (={str(tmp_path / 'data')!r}) does not hold the data set." in message
    assert "--data_root" in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["sample", "RUN", "--n", 0, "--temperature", -1], "lit-vae sample: --n (=0) must be at least 1.\nlit-vae"),
        (["sample", "RUN", "--temperature", -1], "--temperature (=-1) must be at least 0."),
        (["sample", "RUN", "--label", 3], "--label 3: VAE is not told labels. Leave --label out"),
        (["sample", "CVAE", "--label", 10], "--label 10 must be between 0 and 9: the model has 10 classes."),
        (["sample", "CVAE", "--label", -1], "--label -1 must be between 0 and 9"),
        (["sample", "CVAE", "--pixels", "both"], "Give --label, or --pixels mean or sample."),
        (["sample", "RUN", "--out", "x.jpg"], "--out x.jpg: a picture is written as a PNG."),
        (["sample", "RUN", "--device", "gpu"], "--device gpu: "),
        (["sample", "nothing"], "there is no run nothing. Give a run directory, or a .ckpt file."),
        (["reconstruct", "empty"], "there is no checkpoint empty/checkpoints/best.ckpt. Is it a run directory?"),
        (["sample", "junk.ckpt"], "junk.ckpt is not a checkpoint. Give one that lightning fit wrote."),
        (["sample", "half.ckpt"], "half.ckpt cannot be read"),
        (["sample", "python.ckpt"], "python.ckpt does not say what its model is"),
        (["sample", "elsewhere.ckpt"], "its model is nowhere.Model: No module named 'nowhere'"),
        (["sample", "strange.ckpt"], "its model collections.OrderedDict is no Autoencoder."),
        (["sample", "old.ckpt"], "old.ckpt: not of this version of VAE: "),
        (["reconstruct", "RUN", "--n", 181], "n (=181) must be between 1 and the number of test images (=180)."),
        (["interpolate", "RUN", "--steps", 1], "lit-vae interpolate: --steps (=1) must be at least 2."),
        (["traverse", "RUN", "--dims", 0], "lit-vae traverse: --dims (=0) must be at least 1."),
        (["traverse", "RUN", "--data_root", "x"], "--data_root x: Digits is read from no folder. Leave it out."),
        (["fit-prior", "RUN", "--components", 0], "lit-vae fit-prior: --components (=0) must be at least 1."),
        (["fit-prior", "RUN", "--num_images", 50], "need at least 90 images, the training set has 50."),
        (["table", "RUN"], "there is no test_metrics.json. Make it with: lightning test --config"),
    ],
)
def test_a_mistake_is_one_clear_error(
    fails: Callable[..., str],
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = runs["VAE"] / "checkpoints" / "best.ckpt"
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.ckpt").write_text("junk")
    (tmp_path / "half.ckpt").write_bytes(checkpoint.read_bytes()[:20_000])
    content = torch.load(checkpoint, weights_only=True)
    hparams = content["hyper_parameters"]
    changed = {
        "python": {},
        "elsewhere": {**hparams, "_class_path": "nowhere.Model"},
        "strange": {**hparams, "_class_path": "collections.OrderedDict"},
        "old": {**hparams, "image_shape": [1, 4, 4]},
    }
    if args[1] in {f"{name}.ckpt" for name in changed}:
        torch.save({**content, "hyper_parameters": changed[args[1].partition(".")[0]]}, tmp_path / args[1])
    args = [runs.get({"RUN": "VAE"}.get(arg, arg), arg) for arg in args]
    before = sorted(tmp_path.rglob("*"))
    assert expected in fails(1, *args)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (runs["VAE"] / "priors").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "what is to be done? Give one of sample, reconstruct, interpolate, traverse, fit-prior, table."),
        (["smple", "RUN"], "invalid choice: 'smple'"),
        (["sample"], "the following arguments are required: run\nSee lit-vae"),
        (["table"], "the following arguments are required: runs\nSee lit-vae"),
        (["sample", "RUN", "--lable", "3"], "Did you mean --label instead of --lable?\nSee lit-vae sample --help."),
        (["sample", "RUN", "--n", "many"], "--n: expected int, not many\n"),
        (["sample", "RUN", "--label", "many"], "--label: expected int, not many\n"),
        (["sample", "RUN", "--prior", "vamp"], "--prior: expected Literal['model', 'gmm'], not vamp\n"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_clear_error(
    fails: Callable[..., str], args: list[str], expected: str
) -> None:
    assert expected in fails(2, *args)


def test_a_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["lit-vae", "sample", "nothing"])
    with pytest.raises(ValueError, match="there is no run nothing"):
        main()


@pytest.mark.parametrize("verb", ["sample", "reconstruct", "interpolate", "traverse", "fit-prior", "table"])
def test_help_says_what_every_option_is(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", verb, "--help"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert "Args:" not in shown
    options = re.split(r"\n  (?=--|run|RUN)", shown)[1:]
    assert len(options) > 1
    for option in options:
        assert re.match(r"(--\w+ \S+|run|RUN) [A-Za-z].*\. \((required|type)", " ".join(option.split())), option


def test_help_is_light() -> None:
    code = (
        "import sys, lit_vae.tools; print([m for m in ('torch', 'lightning', 'sklearn', 'rich') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"
