"""A study whose runs have a second stage: what comes after what, and what it is trained on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from fake_configs import ROOT
from made_up_latents import SPEC, write_latents

from lit_vae.run.config_folders import configurations_in, with_base
from lit_vae.run.loading import identity
from lit_vae.tools.cluster import slurm
from lit_vae.tools.study.second_stage import SecondStageExperiment, with_second_stages
from lit_vae.tools.study.verb import _choose, read_folder, study


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in ("base.yaml", "a.yaml", "b.yaml", "second_stage.yaml"):
        (folder / name).write_text("seed_everything: 0")
    return folder


@pytest.fixture
def second(configs: Path, tmp_path: Path) -> SecondStageExperiment:
    """That of ``a``, which is trained and tested."""
    every = with_second_stages(read_folder(configs, [Path("o.yaml")], tmp_path / "runs", "last"), configs)
    experiment = every[1]
    assert isinstance(experiment, SecondStageExperiment)
    checkpoint = experiment.first.run / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({}, checkpoint)
    (experiment.first.run / "config.yaml").write_text("")
    (experiment.first.run / "run.json").write_text('{"status": "finished", "step": 7}')
    (experiment.first.run / "test_metrics.json").write_text(f'{{"checkpoint_sha256": "{identity(checkpoint)}"}}')
    return experiment


def test_a_second_stage_is_no_row_and_is_laid_over_nothing(configs: Path) -> None:
    assert [path.name for path in configurations_in(configs)] == ["a.yaml", "b.yaml"]
    assert with_base(configs / "second_stage.yaml") == (configs / "second_stage.yaml",)


def test_each_run_is_followed_by_its_second_stage(configs: Path, tmp_path: Path) -> None:
    found = [e for one in read_folder(configs, [], tmp_path / "runs", "last") for e in one.with_seeds(2)]
    every = with_second_stages(found, configs)
    names = [name for run in ("a", "a_seed1", "b", "b_seed1") for name in (run, f"{run}_prior")]
    assert [e.name for e in every] == names
    assert [e.name for e in _choose(every, ["b"], "--only")] == ["b", "b_prior"]
    assert [e.name for e in _choose(every, ["b_prior"], "--only")] == ["b_prior"]
    assert [e.is_first_stage for e in every] == [True, False] * 4
    assert every[3].files == (configs / "second_stage.yaml", tmp_path / "runs" / "seed1.yaml")
    (configs / "second_stage.yaml").unlink()
    assert with_second_stages(found, configs) == found


def test_it_is_encoded_and_then_trained_on_the_latents(second: SecondStageExperiment, configs: Path) -> None:
    assert second.next_step() == "encode"
    assert second.command("encode") == [
        "lit_vae.tools", "encode", str(second.first.run), "--checkpoint", "last", "--out", str(second.latents),
    ]  # fmt: skip
    compared = second.first.run / "checkpoints" / "last.ckpt"
    write_latents(second.latents, replace(SPEC, checkpoint_sha256=identity(compared)))
    assert second.next_step() == "train"
    assert second.files == (configs / "second_stage.yaml", Path("o.yaml"))
    command, overlay = second.command("train"), second.run.with_name("a_prior.yaml")
    assert second.files == (configs / "second_stage.yaml", Path("o.yaml"), overlay)
    assert command[:2] == ["lit_vae.cli", "fit"]
    assert str(overlay) in command
    assert yaml.safe_load(overlay.read_text()) == {
        "model": {"init_args": {"latent_shape": [2, 2, 3]}},
        "data": {"init_args": {"root": str(second.latents)}},
    }
    assert second.for_as_long(second.first) is second  # the budget is that of the first stages


def test_latents_of_another_checkpoint_and_an_unfinished_first_stage_are_refused(second: SecondStageExperiment) -> None:
    write_latents(second.latents)
    with pytest.raises(ValueError, match=r"has latents of runs/kl/.* which is not .*last\.ckpt\. Move the folder away"):
        second.command("train")
    (second.first.run / "test_metrics.json").unlink()
    with pytest.raises(ValueError, match="its first stage, a, is not trained and tested"):
        second.command("encode")


def test_a_cluster_gets_one_task_for_both_stages(
    second: SecondStageExperiment, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(slurm, "submit_study", lambda names, *_, page: asked.append(names))
    monkeypatch.setattr("lit_vae.tools.study.experiments.Experiment.problem", lambda self: None)
    study(str(configs), out=str(tmp_path / "runs"), slurm=True)
    assert asked == [["a", "b"]]  # a for its second stage alone


def test_the_shipped_study_has_a_second_stage_for_every_row() -> None:
    folder = ROOT / "configs" / "diffusability" / "mnist"
    every = with_second_stages(read_folder(folder, [], Path("runs"), "last"), folder)
    assert len(every) == 2 * len(configurations_in(folder)) >= 16
    assert every[0].problem() is every[1].problem() is None
