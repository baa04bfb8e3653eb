"""What is sent to W&B, and what is kept for an upload."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from PIL import Image

import lit_vae
from lit_vae.run.wandb_logger import STEP, WandB
from lit_vae.run.wandb_settings import group_of, tags_of

ROWS = [{"step": str(step), "epoch": "0", "x": f"{step}.5"} for step in range(6)]


class Begun:
    """W&B in the place of its package: how it was started, and the rows that it got."""

    def __init__(self, on_server: int) -> None:
        self.settings: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.on_server = on_server
        self.fails = False

    def init(self, **settings: Any) -> SimpleNamespace:
        self.settings.append(settings)
        if self.fails and settings["mode"] == "online":
            raise wandb.errors.CommError("no answer")
        start = self.on_server + 1 if settings["mode"] == "online" else 0
        ignored: Callable[..., None] = lambda *_, **__: None  # noqa: E731
        return SimpleNamespace(
            starting_step=start, define_metric=ignored, log=self.log, config=SimpleNamespace(update=ignored)
        )

    def log(self, row: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        assert step is not None
        if row:
            self.rows.append((step, row))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """Online, and the server has four steps."""
    begun = Begun(on_server=3)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", begun.init)
    return begun


def test_online_the_rows_that_the_server_lacks_are_sent(tmp_path: Path, begun: Begun) -> None:
    """Also if the run was offline before: what it logged then is in ``metrics.csv``."""
    logger = WandB(run_dir=str(tmp_path))
    logger.catch_up(ROWS)
    logger.log_metrics({"val": 1.0}, 5)  # of a validation after the step
    logger.log_metrics({"x": 6.5}, 6)
    logger.send()
    expected = [
        {"x": 4.5, "epoch": 0, STEP: 4},
        {"x": 5.5, "epoch": 0, "val": 1.0, STEP: 5},
        {"x": 6.5, STEP: 6},
    ]
    assert begun.rows == [(4, expected[0]), (5, expected[1]), (6, expected[2])]


def test_offline_each_start_has_the_whole_run(tmp_path: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        logger = WandB(run_dir=str(tmp_path))
        logger.catch_up(ROWS)
        logger.send()
    assert [step for step, _ in begun.rows] == [*range(6), *range(6)]
    assert [settings["mode"] for settings in begun.settings] == ["offline", "offline"]
    assert begun.settings[0]["id"] == begun.settings[1]["id"]


def test_without_a_server_it_is_offline_with_one_warning(tmp_path: Path, begun: Begun) -> None:
    begun.fails = True
    logger = WandB(run_dir=str(tmp_path))
    with pytest.warns(UserWarning, match=rf"cannot be reached \(CommError: no answer\).*lit-vae sync {tmp_path} upl"):
        logger.catch_up(ROWS)
    logger.send()
    assert [settings["mode"] for settings in begun.settings] == ["online", "offline"]
    assert [step for step, _ in begun.rows] == list(range(6))


def test_pictures_are_sent_with_the_row_of_their_step(tmp_path: Path, begun: Begun) -> None:
    """Those after the last row are drawn again; those between two rows are rows of their own."""
    for taken in (2, 5, 6, 7):
        path = tmp_path / "media" / "samples" / f"step_{taken}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path)
    logger = WandB(run_dir=str(tmp_path))
    logger.catch_up([row for row in ROWS if row["step"] != "4"])
    logger.send()
    found = [(step, "x" in row, "media/samples" in row) for step, row in begun.rows]
    assert found == [(4, False, True), (5, True, True)]


def test_an_upload_finds_what_wandb_was_started_with(
    tmp_path: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    monkeypatch.setenv("WANDB_NOTES", "why")
    config = {"lr": 0.1, "bound": float("inf"), "path": tmp_path, "prior": {"init_args": {"shape": (8,)}}}
    WandB(run_dir=str(tmp_path), name="n", group="g").log_hyperparams(config)
    assert yaml.safe_load((tmp_path / "wandb" / "settings.yaml").read_text()) == {
        "project": "lit_vae", "entity": None, "name": "n", "group": "g", "tags": ["a", "b"], "notes": "why",
        "job_type": None, "config": {**config, "path": str(tmp_path), "prior": {"init_args": {"shape": [8]}}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("run", "group"),
    [
        ("runs/compare/mnist/gan", "compare/mnist"),
        ("/scratch/me/runs/compare/mnist/gan", "compare/mnist"),
        ("/scratch/runs/old/runs/study/vae", "study"),
        ("study/vae", "study"),
        ("runs/vae", None),
        ("vae", None),
    ],
)
def test_the_group_is_the_study(run: str, group: str | None) -> None:
    assert group_of(Path(run)) == group


@pytest.mark.parametrize(
    ("config", "tags"),
    [
        ("vae/mnist", ["VAE", "LearnedGaussian", "ELBO"]),
        ("kl_autoencoder/kl_f8", ["KLAutoencoder", "Laplace", "ELBO", "Perceptual", "Adversary"]),
        ("vqvae/mnist", ["VQVAE", "LearnedGaussian"]),
        ("study/pca", ["PCA"]),
    ],
)
def test_the_tags_are_family_and_objective(config: str, tags: list[str]) -> None:
    path = Path(lit_vae.__file__).parents[1] / "configs" / f"{config}.yaml"
    assert tags_of(yaml.safe_load(path.read_text())) == tags


def test_the_tags_of_the_configuration_join_those_of_the_user(tmp_path: Path, begun: Begun) -> None:
    """And the complete configuration is kept, whatever Lightning knows of it."""
    logger = WandB(run_dir=str(tmp_path), tags=["baseline", "PCA"])
    config = {"seed_everything": 1, "model": {"class_path": "lit_vae.models.PCA"}}
    logger.describe(config)
    logger.log_hyperparams({"lr": 0.1})
    kept = yaml.safe_load((tmp_path / "wandb" / "settings.yaml").read_text())
    assert (kept["tags"], kept["config"]) == (["baseline", "PCA"], config)
    assert begun.settings[0]["tags"] == ["baseline", "PCA"]


def test_what_is_kept_for_an_upload_does_not_depend_on_wandb(
    tmp_path: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "shared")  # which has no other way
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(ValueError("refused")))
    with pytest.warns(UserWarning, match=rf"W&B failed at starting \(ValueError: refused.*lit-vae sync {tmp_path} upl"):
        WandB(run_dir=str(tmp_path)).log_hyperparams({"lr": 0.1})
    assert yaml.safe_load((tmp_path / "wandb" / "settings.yaml").read_text())["config"] == {"lr": 0.1}


def test_the_package_imports_none_of_wandbs_private_modules() -> None:
    """Nor reads its files, for which it would need them."""
    private = re.compile(r"wandb\.(sdk|proto|apis|old|vendor|util)\b")
    package = Path(lit_vae.__file__).parent
    found = [*package.rglob("*.py"), *package.with_name("callbacks").rglob("*.py")]
    assert len(found) > 100
    assert [path.name for path in found if private.search(path.read_text())] == []
