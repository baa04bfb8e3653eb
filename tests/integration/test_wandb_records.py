"""What a training, its test and its evaluation leave in W&B's offline records, read back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from wandb_files import ended, rows_of, starts
from wandb_helpers import assert_wandb_has_each_step_once

from lit_vae.images import to_uint8
from lit_vae.tools.runs import find_run, load_data, load_model

ROOT = Path(__file__).resolve().parents[2]
FAST = [
    "--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--trainer.limit_test_batches=1",
    "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def said_by(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The run of a study, and what was said by training, test and evaluation."""
    run = tmp_path_factory.mktemp("wandb") / "runs" / "study" / "one"
    config = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    config["trainer"]["callbacks"] = [{"class_path": "callbacks.Reconstructions", "init_args": {"num_images": 5}}]
    file = run.with_name("one.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(config))
    fitted = said_by("lit_vae.cli", "fit", "--config", str(file), "--run_dir", str(run), *FAST)
    tested = said_by("lit_vae.cli", "test", "--config", str(run / "config.yaml"), "--ckpt_path", "last")
    evaluated = said_by("lit_vae.tools", "evaluate", str(run), "--features", "pca", "--num_images", "50")
    return run, [fitted, tested, evaluated]


def summary_of(start: Path) -> dict[str, Any]:
    items = [item for record in ended(start) for item in record.summary.update]
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@pytest.mark.slow
def test_a_run_of_a_study_is_described_in_full(trained: tuple[Path, list[str]]) -> None:
    run, _ = trained
    for start in starts(run):
        (described,) = [record.run for record in ended(start) if record.HasField("run")]
        assert (described.project, described.run_group, described.display_name) == ("lit_vae", "study", "study/one")
        assert list(described.tags) == ["VAE", "LearnedGaussian", "ELBO"]
        updates = [item for record in ended(start) for item in record.config.update]
        config = {item.key: json.loads(item.value_json) for item in updates}
        whole = yaml.safe_load((run / "config.yaml").read_text())
        assert {name: config[name] for name in whole} == whole


@pytest.mark.slow
def test_a_test_and_an_evaluation_add_their_numbers_to_the_same_run(trained: tuple[Path, list[str]]) -> None:
    run, _ = trained
    fitted, tested, evaluated = starts(run)
    assert len({start.name.rpartition("-")[2] for start in starts(run)}) == 1
    of_test = json.loads((run / "test_metrics.json").read_text())["metrics"]
    of_samples = json.loads((run / "evaluation.json").read_text())["model"]["metrics"]
    assert len(of_test) == 5
    assert len(of_samples) == 1
    assert not summary_of(fitted).keys() & of_test.keys()
    assert {name: value for name, value in summary_of(tested).items() if name.startswith("test/")} == of_test
    found = {name: value for name, value in summary_of(evaluated).items() if name.startswith("test/")}
    assert found == {**of_test, **of_samples}
    assert_wandb_has_each_step_once(run)


@pytest.mark.slow
def test_reconstructions_are_there_image_by_image(
    trained: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the pixel: the original above its reconstruction, each enlarged eight times, with a line between."""
    run, _ = trained
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    found = find_run(str(run), "last")
    model = load_model(found, torch.device("cpu"))
    x, y = load_data(found, model, None, ["val"]).example_batch(5, "val")
    with torch.no_grad():
        pairs = list(zip(to_uint8(x)[:, 0].numpy(), to_uint8(model.reconstruct(x, y))[:, 0].numpy(), strict=True))
    for start in starts(run):
        rows = [row for row in rows_of(start) if "images/reconstructions/count" in row]
        assert [row["_step"] for row in rows] == [2, 5]
        files = rows[-1]["images/reconstructions/filenames"]
        assert len(files) == 5
        for file, (original, reconstruction) in zip(files, pairs, strict=True):
            pixels = np.asarray(Image.open(start / "files" / file))
            assert pixels.shape == (130, 64)
            assert np.array_equal(pixels[:64:8, ::8], original)
            assert np.array_equal(pixels[66::8, ::8], reconstruction)


@pytest.mark.slow
def test_offline_the_way_of_this_project_is_the_only_advice(trained: tuple[Path, list[str]]) -> None:
    run, said = trained
    for text in said:
        assert "wandb sync" not in text
        assert text.count(f"lit-vae sync {run}") == 1
        assert "wandb:" not in text
