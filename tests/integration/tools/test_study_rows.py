"""A study of rows over a base."""

from pathlib import Path

import pytest
import yaml
from study_helpers import Pages, record, write_configs
from tools_helpers import Fails, Tools


@pytest.mark.slow
def test_rows_over_a_base_train_for_as_long_as_the_leader(
    tools: Tools, fails: Fails, tmp_path: Path, pages: Pages
) -> None:
    """The leader stops at its second validation, since its number falls; a row is one setting."""
    configs, runs = tmp_path / "configs", tmp_path / "runs"
    base = yaml.safe_load((write_configs(tmp_path / "whole") / "vae.yaml").read_text())
    base["trainer"] |= {"max_epochs": -1, "max_steps": 400, "val_check_interval": 3, "check_val_every_n_epoch": None}
    configs.mkdir()
    (configs / "base.yaml").write_text(yaml.safe_dump(base))
    stop = {"class_path": "callbacks.StopWhenFlat", "init_args": {"monitor": "val/loss", "gain": 1e6}}
    (configs / "leader.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [stop]}}))
    (configs / "follower.yaml").write_text("model: {init_args: {objective: {init_args: {beta: 2.0}}}}")

    study = ("study", configs, "--out", runs, "--seeds", 2, "--budget_from", "leader")
    assert "--budget_from lead: there is no such configuration. Give one of" in fails(1, *study[:-1], "lead")
    out = tools(*study)
    assert out.index("leader (sets the number of steps)") < out.index("follower (2/4): trains")
    assert [record(runs / name)["step"] for name in ("leader", "follower", "leader_seed1", "follower_seed1")] == [6] * 4
    (asked,) = pages.asked
    assert [Path(run).name for run in asked["runs"]] == ["follower", "leader", "follower_seed1", "leader_seed1"]
    saved = yaml.safe_load((runs / "follower" / "config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == saved["trainer"]["min_steps"] == 6
    assert saved["model"]["init_args"]["objective"]["init_args"]["beta"] == 2.0
    other = yaml.safe_load((runs / "follower_seed1" / "config.yaml").read_text())
    assert (saved.pop("seed_everything"), other.pop("seed_everything")) == (0, 1)
    assert saved == other
    assert tools(*study).count("done before") == 4
    assert "trainer.max_steps: 6 -> 400" in fails(1, *study[:-2])  # without the leader it is another study
