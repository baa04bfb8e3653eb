"""Where a command writes."""

from pathlib import Path

import pytest

from lit_vae.run.directory import choose_run_dir, refuse_occupied


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
    with pytest.raises(ValueError, match=r"of torchrun cannot agree on a new name\. Give --run_dir"):
        choose_run_dir(None, [], None, fit=True)


@pytest.mark.parametrize(
    ("run_dir", "problem"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("runs/a\nb", "control characters"),
        ("runs/%j", "%j works only in #SBATCH --output. Leave --run_dir out"),
        ("runs/%A_%a", "%A works only in"),
        ("~nobody-is-called-so/run", "this machine has no such user"),
        ("runs/" + "ü" * 128, "longer than 255 bytes"),
        ("/".join(["d" * 200] * 21), "longer than 255 bytes"),
    ],
)
def test_a_name_that_was_not_meant_is_refused(run_dir: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^--run_dir '.*': ") as refused:
        choose_run_dir(run_dir, [], None, fit=True)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("run_dir", [".", "runs/50%_off", "runs/beta_100%", "a b", "~/x".replace("~", "/home/me")])
def test_other_names_are_fine(run_dir: str) -> None:
    assert choose_run_dir(run_dir, [], None, fit=True) == Path(run_dir)


def test_a_directory_in_which_nothing_was_trained_is_free(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "config.yaml").write_text("# of a start that failed in set-up\n")
    (tmp_path / "metrics.csv").write_text("step,epoch\n")
    refuse_occupied(tmp_path, None, None)
    (tmp_path / "metrics.csv").write_text("step,epoch\n0,0\n")
    with pytest.raises(ValueError, match=r"that has no checkpoint\. Add --ckpt_path auto to start it again"):
        refuse_occupied(tmp_path, None, None)
    refuse_occupied(tmp_path, None, "auto")
    last.parent.mkdir()
    last.touch()
    with pytest.raises(ValueError, match=r"already contains a run\. Add --ckpt_path last to resume it"):
        refuse_occupied(tmp_path, None, None)
    refuse_occupied(tmp_path, str(last), str(last))
    with pytest.raises(ValueError, match=r"and --ckpt_path elsewhere/last\.ckpt is a checkpoint of another"):
        refuse_occupied(tmp_path, "elsewhere/last.ckpt", "elsewhere/last.ckpt")
