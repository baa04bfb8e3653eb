"""What is handed to sbatch, and what is said where that does not go."""

from pathlib import Path

import pytest

from lit_vae.tools.cluster.slurm import SCRIPT, submit_study

ROOT = Path(__file__).resolve().parents[3]
LOGS = Path("runs") / "slurm"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program sbatch that counts its jobs and writes down what it is asked, a line each."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" >>asked\necho "$(wc -l <asked);cluster"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "asked"


def test_an_array_and_a_page_that_waits_for_it(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit_study(["a", "b", "c"], ["configs/x", "--out", "runs"], LOGS, page=True)
    assert asked.read_text() == (
        f"--parsable --array=0-2 --output=runs/slurm/%A_%a.out {SCRIPT} a b c -- configs/x --out runs\n"
        f"--parsable --dependency=afterany:1 --output=runs/slurm/%j.out {SCRIPT} -- configs/x --out runs\n"
    )
    assert capsys.readouterr().out == (
        "a: job 1_0, log runs/slurm/1_0.out\n"
        "b: job 1_1, log runs/slurm/1_1.out\n"
        "c: job 1_2, log runs/slurm/1_2.out\n"
        "comparison: job 2, log runs/slurm/2.out\n"
    )
    assert LOGS.is_dir()


def test_a_page_waits_for_nothing_where_all_is_done(asked: Path) -> None:
    submit_study([], ["configs/x"], LOGS, page=True)
    assert asked.read_text() == f"--parsable --output=runs/slurm/%j.out {SCRIPT} -- configs/x\n"


def test_runs_alone_have_no_page(asked: Path) -> None:
    submit_study(["a"], ["configs/x"], LOGS, page=False)
    assert asked.read_text().count("\n") == 1


def test_without_slurm_it_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is no sbatch on the PATH\. Run the command on a login node"):
        submit_study(["a"], ["configs/x"], LOGS, page=True)
    assert list(tmp_path.iterdir()) == []


def test_what_sbatch_refuses_is_said_with_what_sets_it(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"sbatch: error: invalid partition\. Partition, .* SBATCH_PARTITION"):
        submit_study(["a"], ["configs/x"], LOGS, page=True)


def test_the_script_is_the_one_that_people_copy() -> None:
    assert SCRIPT.resolve() == ROOT / "slurm" / "study.sbatch"
