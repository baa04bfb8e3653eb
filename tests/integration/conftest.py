"""The two-stage path on digits, trained once for all tests that look at it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from two_stages_helpers import CONFIGS, QUIET, TwoStages

from lit_vae.cli import main as lightning_main
from lit_vae.tools import main as lit_vae_main


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> TwoStages:
    folder = tmp_path_factory.mktemp("two_stages")
    made = TwoStages(folder / "stage1", folder / "codes", folder / "prior")
    with pytest.MonkeyPatch.context() as patch:

        def run(main: Callable[[], None], *args: Any) -> None:
            patch.setattr(sys, "argv", [*map(str, args)])
            main()

        stage1 = ["--config", CONFIGS / "vqvae" / "digits.yaml", "--run_dir", made.stage1, "--trainer.callbacks=[]"]
        run(lightning_main, "lightning", "fit", *stage1, "--trainer.max_epochs=2", *QUIET)
        run(lit_vae_main, "lit-vae", "encode", made.stage1, "--out", made.codes)
        prior = ["--config", CONFIGS / "prior" / "digits.yaml", "--run_dir", made.prior, "--data.root", made.codes]
        run(lightning_main, "lightning", "fit", *prior, "--trainer.max_epochs=2", *QUIET)
    return made


@pytest.fixture
def lit_vae(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The ``lit-vae`` command, run in this process."""

    def run(*args: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["lit-vae", *map(str, args)])
        lit_vae_main()

    return run
