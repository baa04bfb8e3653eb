"""A study of rows over a base."""

from pathlib import Path

import yaml
from study_helpers import Pages, record, write_configs
from tools_helpers import Fails, Tools


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

    study = ("study", configs, "--out", runs, "--budget_from", "leader")
    assert "--budget_from lead: there is no such configuration. Give one of" in fails(1, *study[:-1], "lead")
    out = tools(*study)
    assert out.index("leader (sets the number of steps)") < out.index("follower (2/2): trains")
    assert record(runs / "leader")["step"] == record(runs / "follower")["step"] == 6
    saved = yaml.safe_load((runs / "follower" / "config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 6
    assert saved["model"]["init_args"]["objective"]["init_args"]["beta"] == 2.0
    assert tools(*study).count("done before") == 2
    assert "trainer.max_steps: 6 -> 400" in fails(1, *study[:-2])  # without the leader it is another study
