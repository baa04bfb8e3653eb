"""Data copied to a node's own disk, and read there."""

import os
import random
import re
import shutil
import tarfile
import warnings
from pathlib import Path

import pytest
from data_helpers import write_image, write_mnist

from lit_vae.data import MNIST, ImageFolder
from lit_vae.run import staging
from lit_vae.run.staging import main, stage, staged


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job that is to stage ``shared/data``; where its copy will lie."""
    write_mnist(tmp_path / "shared" / "data")
    monkeypatch.setenv("LIT_VAE_STAGE", str(tmp_path / "shared" / "data"))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    return tmp_path / "node" / "lit_vae-12" / "data"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(monkeypatch: pytest.MonkeyPatch, folder: Path, suffix: str, name: str) -> Path:
    """A tar file of ``folder`` beside it, in which it has a name; the job is to stage that."""
    packed = folder.with_name(f"{folder.name}{suffix}")
    with tarfile.open(packed, f"w:{re.sub(r'[.](tar[.]?|t)', '', suffix)}") as archive:
        archive.add(folder, name)
    monkeypatch.setenv("LIT_VAE_STAGE", str(packed))
    return packed


def test_what_is_staged_is_read_there_and_nothing_else_changes(job: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "shared" / "data")
    shared = MNIST(root, num_val=20)
    assert shared.root == Path(root)  # there is no copy yet
    assert stage() == job
    assert content(job) == content(Path(root))
    assert job.parent.stat().st_mode & 0o777 == 0o700
    local = MNIST(root, num_val=20)
    assert local.root == job
    assert dict(local.hparams) == dict(shared.hparams)  # which a checkpoint keeps
    assert local.fingerprint("train") == shared.fingerprint("train")  # which references are named after
    assert staged(tmp_path / "shared") == tmp_path / "shared"  # it lies around, not within
    shutil.rmtree(job.parent)  # by the job, at its end
    assert MNIST(root, num_val=20).root == Path(root)


def test_a_folder_within_is_found_through_links(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "shared" / "data" / "photos" / "a.png", 3)
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    stage()
    monkeypatch.chdir(tmp_path)
    assert ImageFolder("link/data/photos").root == job / "photos"


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tbz2", ".txz"])
@pytest.mark.parametrize("packed", ["what is in it", "by its name", "by its path"])
def test_a_tar_file_stands_for_the_folder_of_its_name(
    packed: str, suffix: str, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it was packed: ``tar cf data.tar -C data .``, ``data`` or ``/shared/data``."""
    folder = tmp_path / "shared" / "data"
    pack(monkeypatch, folder, suffix, {"what is in it": ".", "by its name": "data", "by its path": str(folder)}[packed])
    assert stage() == job
    assert content(job) == content(folder)
    assert MNIST(str(folder), num_val=20).root == job
    assert sorted(path.name for path in job.parent.iterdir()) == ["copy.lock", "data"]


def test_a_folder_of_that_name_within_stays_where_it_is(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(monkeypatch, tmp_path / "shared" / "data", ".tar", "photos/data")
    stage()
    assert {Path(name).parts[:3] for name in content(job)} == {("photos", "data", "MNIST")}


def test_what_the_copy_lacks_is_read_where_it_is(job: Path, tmp_path: Path) -> None:
    stage()
    late = tmp_path / "shared" / "data" / "photos"
    write_image(late / "a.png", 3)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")  # as in a run
        roots = [ImageFolder(str(late)).root for _ in range(2)]
    assert roots == [late, late]
    (once,) = warned
    assert str(once.message) == f"{late} is not in the copy of {late.parent} in {job}, so {late} itself is read."


def test_a_copy_that_was_interrupted_is_made_anew(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves half a file; there is no copy until all files are whole."""
    shared, copyfile, begun = tmp_path / "shared" / "data", shutil.copyfile, []

    def killed_at_the_third(source: Path, target: Path) -> None:
        begun.append(source)
        if len(begun) == 3:
            target.write_text("half")
            raise KeyboardInterrupt
        copyfile(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(staging, "AT_ONCE", 1)
        patched.setattr(staging.shutil, "copyfile", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            stage()
    assert any(path.read_bytes() == b"half" for path in job.parent.rglob("*-ubyte"))
    assert staged(shared) == shared
    stage()
    assert content(job) == content(shared)
    assert sorted(path.name for path in job.parent.iterdir()) == ["copy.lock", "data"]
    monkeypatch.setattr(staging.shutil, "copyfile", None)
    assert stage() == job  # by a job that was put back into the queue


@pytest.mark.parametrize("fault", ["full", "absent", "not a tar", "no tar by its name", "no place"])
def test_a_copy_that_fails_is_a_warning_and_leaves_nothing(
    fault: str, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "shared" / "data"
    if fault == "full":

        def full(source: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("lit_vae.run.staging.shutil.copyfile", full)
    elif fault == "no place":
        (tmp_path / "node").write_text("a file")
    else:
        given = tmp_path / {"absent": "nowhere", "not a tar": "data.tar", "no tar by its name": "data.tar.zip"}[fault]
        if fault != "absent":
            given.write_text("a page of an error")
        monkeypatch.setenv("LIT_VAE_STAGE", str(given))
    main()
    said = capsys.readouterr().out
    assert said.startswith(f"warning: {given} is not copied to this node (")
    assert said.endswith(f"), so {given} itself is read.\n")
    assert ("give LIT_VAE_STAGE a folder" in said) == (fault == "no tar by its name")
    assert not job.parent.exists()
    assert staged(given) == given


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("fault", ["cut short", "a block is another", "the rest is noise"])
def test_a_tar_file_that_is_not_whole_is_a_warning_and_leaves_nothing(
    fault: str,
    suffix: str,
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also one that ends where the header of a file would begin, which ``tarfile`` takes for a shorter one."""
    folder = tmp_path / "shared" / "data"
    (folder / "Labels.txt").write_text("\n".join(map(str, range(40_000))))  # first, and compresses well
    packed = pack(monkeypatch, folder, suffix, "data")
    with tarfile.open(packed) as archive:
        begins = archive.getmembers()[-1].offset  # of the last file's header
    half = begins if suffix == ".tar" else packed.stat().st_size // 2
    whole = packed.read_bytes()
    rest = {
        "cut short": b"",
        "a block is another": b"\xff" * 512 + whole[half + 512 :],
        "the rest is noise": random.Random(0).randbytes(len(whole) - half),
    }[fault]
    packed.write_bytes(whole[:half] + rest)
    main()
    assert capsys.readouterr().out.startswith(f"warning: {packed} is not copied to this node (")
    assert not job.parent.exists()
    assert staged(folder) == folder


def test_outside_of_a_job_nothing_is_staged(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert staged(tmp_path / "shared" / "data") == tmp_path / "shared" / "data"
    main()
    assert "SLURM_JOB_ID must be set" in capsys.readouterr().out
    assert job.is_dir()


def test_circles_and_what_is_no_file_are_left_out_and_links_stay_links(job: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "data" / "photos"
    for i in range(10):
        write_image(shared / "train" / f"{i}.png", i)
        write_image(shared / "test" / f"{i}.png", 100 + i)
    (shared / "train" / "up").symlink_to("../..")
    (shared / "train" / "also").symlink_to("../test")
    (shared / "gone.png").symlink_to("nowhere")
    os.mkfifo(shared / "test" / "pipe.png")
    with pytest.warns(UserWarning, match="ImageFolder"):
        apart = splits(ImageFolder(str(shared), size=8, num_workers=0))
    stage()
    data = ImageFolder(str(shared), size=8, num_workers=0)
    assert data.root == job / "photos"
    assert not (job / "photos" / "train" / "up").exists()
    with pytest.warns(UserWarning, match="10 files are other names of a file"):
        assert splits(data) == apart
    assert apart["test"] == list(range(100, 110))


def splits(data: ImageFolder) -> dict[str, list[int]]:
    data.setup()
    return {split: sorted(data.source(split).images[:, 0, 0, 0].tolist()) for split in ("train", "val", "test")}  # type: ignore[arg-type]
