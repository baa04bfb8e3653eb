"""Every verb with every file of a run damaged: one message that names the file, and nothing left behind."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from damages import CHECKPOINT, DAMAGES, FILES, FIRST, GONE, HARMLESS, REFUSE_A_VAE, VERBS, cases, damaged_to_no_harm

from lit_vae.run.loading import identity
from lit_vae.tools import main
from lit_vae.tools.priors.fitted import save_prior
from lit_vae.tools.priors.mixture import Mixture
from lit_vae.tools.runs import find_run


@pytest.fixture(scope="session")
def whole(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that there can be."""
    run = Path(shutil.copytree(runs["VAE"], tmp_path_factory.mktemp("whole") / "run"))
    found = find_run(str(run), "best")
    of = {"checkpoint": "best.ckpt", "checkpoint_sha256": found.identity}
    images = {"data": "Digits", "image_shape": [1, 8, 8], "values": "dequantized"}
    mixture = Mixture(torch.ones(1, 1).double(), torch.zeros(1, 1, 8).double(), torch.ones(1, 1, 8).double())
    save_prior(found, "gmm", mixture, {**of, **images, "metrics": {"test/fd_pca64_gmm": 1.0}, "samples": {}})
    records: dict[str, Any] = {
        "test_metrics.json": {**of, **images, "model": "VAE", "data_seed": 0, "metrics": {"test/elbo": -1.0}},
        "evaluation.json": {"model": {**of, "metrics": {"test/fd_pca64": 2.0}, "protocols": {}}},
        "latents.json": {**of, "scale_factor": 1.0, "mean": [0.0], "std": [1.0], "num_images": 2, "split": "val"},
    }
    for name, record in records.items():
        (run / name).write_text(json.dumps(record))
    (run / "metrics.csv").write_text("step,val/loss\n1,3.0\n2,2.0\n")
    assert all((run / name).is_file() for name in FILES)
    assert identity(found.checkpoint) == of["checkpoint_sha256"]
    return run


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A verb's exit code, and what it says of a mistake; any other error of it is raised."""

    def run(verb: str, run: Path, out: Path) -> tuple[int, str]:
        words = [word.replace("RUN", str(run)).replace("OUT", str(out)) for word in VERBS[verb]]
        monkeypatch.setattr(sys, "argv", ["lit-vae", *words])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.fixture
def damaged(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A copy of the run with files damaged, each in a way."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "run.yaml").write_bytes((whole / "config.yaml").read_bytes())

    def copy(*damages: tuple[str, str]) -> Path:
        run = tmp_path / "run"
        shutil.copytree(whole, run)
        for name, damage in damages:
            if damage == GONE:
                (run / name).unlink()
            else:
                (run / name).write_bytes(DAMAGES[damage](run / name))
        return run

    return copy


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def check(code: int, said: str, name: str, before: dict[str, bytes | None], folder: Path) -> None:
    assert code in (1, 2), said
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 25
    assert f"run/{name}" in said
    assert tree(folder) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(
    damaged: Callable[..., Path],
    run_verb: Callable[..., tuple[int, str]],
    tmp_path: Path,
    name: str,
    damage: str,
) -> None:
    if (name, damage) in HARMLESS:
        return
    run = damaged((name, damage))
    before = tree(tmp_path)
    code, said = run_verb(FIRST[name], run, tmp_path)
    check(code, said, name, before, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "name", "damage"), cases())
def test_every_verb_names_a_damaged_file_that_it_reads(
    damaged: Callable[..., Path],
    run_verb: Callable[..., tuple[int, str]],
    tmp_path: Path,
    verb: str,
    name: str,
    damage: str,
) -> None:
    run = damaged((name, damage))
    before = tree(tmp_path)
    code, said = run_verb(verb, run, tmp_path)
    if damage != GONE:
        check(code, said, name, before, tmp_path)
        return
    assert code in (0, 1, 2)
    assert len(said.splitlines()) <= 25
    if name == CHECKPOINT and verb != "compare":
        assert code == 1
        assert "run/checkpoints/best.ckpt" in said


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "study"])
def test_a_verb_does_not_mind_damage_to_what_it_does_not_read(
    damaged: Callable[..., Path], run_verb: Callable[..., tuple[int, str]], tmp_path: Path, verb: str
) -> None:
    """All such files of a run are damaged at once."""
    damages = damaged_to_no_harm(verb)
    code, said = run_verb(verb, damaged(*damages), tmp_path)
    assert code == (verb in REFUSE_A_VAE), said
    assert REFUSE_A_VAE.get(verb, "") in said
    assert [name for name, _ in damages if f"run/{name}" in said] == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_study_names_a_damaged_configuration_of_its_run(
    damaged: Callable[..., Path], run_verb: Callable[..., tuple[int, str]], tmp_path: Path, damage: str
) -> None:
    if damage == "cut in half":
        return
    run = damaged(("config.yaml", damage))
    (run / "checkpoints" / "last.ckpt").touch()
    run.rename((tmp_path / "runs").mkdir() or tmp_path / "runs" / "run")
    before = tree(tmp_path)
    code, said = run_verb("study", run, tmp_path)
    check(code, said, "config.yaml", before, tmp_path)


def test_a_study_imports_nothing_that_the_configuration_of_a_run_names(
    damaged: Callable[..., Path],
    run_verb: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "notours.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = damaged(("run.json", "emptied"))
    (run / "run.json").write_bytes((run / "run.json").read_bytes() or b'{"status": "preempted"}')
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["callbacks"] = [{"class_path": "notours.Callback"}]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / "run")
    code, said = run_verb("study", run, tmp_path)
    assert code == 1
    assert f"{tmp_path}/runs/run/config.yaml: a value names notours.Callback, and importing that could run" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["sample", "RUN", "--n", "1000000000"],
            "--n 1000000000 needs 256,000,000,000 bytes",
        ),
        (
            ["interpolate", "RUN", "--pairs", "10000", "--steps", "10000"],
            "--pairs 10000 --steps 10000 needs 25,600,000,000 bytes",
        ),
        (["traverse", "RUN", "--num_images", "1000000000"], "--num_images 1000000000 needs "),
        (
            ["evaluate", "RUN", "--features", "pca", "--num_images", "1000000000"],
            "--num_images 1000000000 needs 8,000,000",
        ),
        (["sample", "RUN", "--seed", "9223372036854775808"], "--seed (=9223372036854775808) must be less than 2^63."),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_with_its_bytes(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", *(word.replace("RUN", str(whole)) for word in words)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert expected in capsys.readouterr().err


def test_a_feature_net_draws_no_images(
    feature_net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", "sample", str(feature_net)])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == (
        f"error: lit-vae sample: {feature_net} is a FeatureNet, which draws no images. Give a run of a model that does."
        "\n"
    )


def test_a_package_is_trusted_for_one_command(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notours.py").write_text("import lit_vae.models\nclass Net(lit_vae.models.VAE):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(whole / CHECKPOINT, weights_only=True)
    content["hyper_parameters"]["_class_path"] = "notours.Net"
    torch.save(content, tmp_path / "model.ckpt")
    command = ["lit-vae", "sample", str(tmp_path / "model.ckpt"), "--out", str(tmp_path / "a.png"), "--n", "4"]
    for trust, code in (([], 1), (["--trust", "notours"], None), ([], 1)):
        monkeypatch.setattr(sys, "argv", [*command, *trust])
        if code is None:
            main()
            assert (tmp_path / "a.png").is_file()
        else:
            with pytest.raises(SystemExit):
                main()
            assert "its model names notours.Net, and importing that could run any code" in capsys.readouterr().err


def test_the_saved_configuration_is_yaml(whole: Path) -> None:
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["class_path"] == "lit_vae.models.VAE"
