"""Where a command writes."""

from pathlib import Path

import pytest

from lit_vae.run.directory import choose_run_dir


@pytest.fixture(autouse=True)
def _no_name_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIT_VAE_RUN_NAME", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_given_directory_is_taken() -> None:
    assert choose_run_dir("here", [Path("configs/vae/x.yaml")], "last", fit=True) == Path("here")


def test_a_new_run_is_named_after_its_configuration_and_the_time() -> None:
    run = choose_run_dir(None, [Path("configs/vae/mnist.yaml"), Path("configs/overlays/bf16.yaml")], None, fit=True)
    assert run.parent == Path("runs/vae-mnist")
    assert run == choose_run_dir(None, [Path("configs/vae/mnist.yaml")], None, fit=True)  # a child process agrees


def test_a_slurm_job_is_named_after_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert choose_run_dir(None, [Path("configs/vae/mnist.yaml")], None, fit=True) == Path("runs/vae-mnist/17")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert choose_run_dir(None, [Path("configs/vae/mnist.yaml")], None, fit=True) == Path("runs/vae-mnist/16_3")


def test_a_run_started_again_stays_beside_the_first() -> None:
    assert choose_run_dir(None, [Path("runs/vae-mnist/17/config.yaml")], None, fit=True).parent == Path(
        "runs/vae-mnist"
    )


def test_an_evaluation_writes_into_the_run_of_its_checkpoint() -> None:
    run = choose_run_dir(None, [Path("configs/vae/mnist.yaml")], "runs/a/b/checkpoints/best.ckpt", fit=False)
    assert run == Path("runs/a/b")


def test_last_of_which_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert choose_run_dir(None, [tmp_path / "config.yaml"], "last", fit=True) == tmp_path
    with pytest.raises(
        ValueError, match=r"--ckpt_path last: which run\? Give --run_dir RUN, or --config RUN/config.yaml"
    ):
        choose_run_dir(None, [Path("configs/vae/mnist.yaml")], "last", fit=True)


def test_torchrun_needs_a_given_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"started by torchrun cannot agree on a new name\. Give --run_dir"):
        choose_run_dir(None, [], None, fit=True)
