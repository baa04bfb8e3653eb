"""A folder of codes: what is written is read, and whatever is wrong with it is told."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_vae.codes import CodeBatch, CodeSpec
from lit_vae.data.code_files import CodeWriter, code_dtype, open_split, read_manifest

SPEC = CodeSpec(
    grids=((1, 2), (2, 3)),
    num_embeddings=(4, 300),
    num_classes=100,
    checkpoint="runs/vqvae/checkpoints/last.ckpt",
    checkpoint_sha256="ab" * 32,
    model="lit_vae.models.VQVAE",
    image_shape=(3, 8, 8),
    distortion={},
    bits_per_dim=(192, 7.0),
)
SIZES = {"train": 20, "val": 7, "test": 5}


def made_up(spec: CodeSpec, n: int, seed: int = 0) -> CodeBatch:
    """Random codes; the label says which image it is."""
    generator = torch.Generator().manual_seed(seed)
    levels = zip(spec.grids, spec.num_embeddings, strict=True)
    codes = tuple(torch.randint(k, (n, *grid), generator=generator) for grid, k in levels)
    return CodeBatch(codes, torch.arange(n) if spec.num_classes else torch.full((n,), -1))


def in_batches(codes: CodeBatch, size: int = 6) -> Iterator[tuple[CodeBatch, torch.Tensor]]:
    for rows in torch.arange(len(codes.y)).split(size):
        yield CodeBatch(tuple(level[rows] for level in codes.codes), codes.y[rows]), 0.5 * rows


def write_codes(root: Path, spec: CodeSpec = SPEC, sizes: dict[str, int] = SIZES) -> dict[str, CodeBatch]:
    """Write a folder and return what is in it."""
    made = {split: made_up(spec, n, seed) for seed, (split, n) in enumerate(sizes.items())}
    with CodeWriter(root, spec) as writer:
        for split, codes in made.items():
            writer.write(split, len(codes.y), in_batches(codes))
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = write_codes(tmp_path / "codes")
    manifest = read_manifest(tmp_path / "codes")
    means = {split: 0.5 * (n - 1) / 2 for split, n in SIZES.items()}  # of 0, 0.5, 1, ...
    assert manifest.spec == replace(SPEC, distortion=means)
    for split, (codes, y) in made.items():
        files = open_split(tmp_path / "codes", manifest, split)
        assert len(files) == SIZES[split]
        rows = torch.arange(SIZES[split]).flip(0)[::2]
        read = files.read(rows)
        assert torch.equal(read.y, y[rows])
        for got, expected in zip(read.codes, codes, strict=True):
            assert got.dtype == torch.int64
            assert torch.equal(got, expected[rows])
        assert all(isinstance(array, np.memmap) for array in (*files.levels, files.labels))
    assert not list(tmp_path.glob("*.partial"))


def test_the_folder_is_plain_arrays_and_says_how_the_codes_are_used(tmp_path: Path) -> None:
    made = write_codes(tmp_path / "codes")
    record = json.loads((tmp_path / "codes" / "codes.json").read_text())
    assert record["format"] == 1
    assert record["bits_per_dim"] == {"dims": 192, "offset": 7.0}
    for i, (level, k) in enumerate(zip(made["train"].codes, SPEC.num_embeddings, strict=True)):
        array = np.load(tmp_path / "codes" / "train" / f"level_{i}.npy")
        assert array.dtype == (np.uint8, np.uint16)[i]
        assert np.array_equal(array, level.numpy())
        _, counts = np.unique(array, return_counts=True)
        shares = counts / counts.sum()
        perplexity = math.prod(float(p) ** -float(p) for p in shares)
        assert record["splits"]["train"]["perplexity"][i] == pytest.approx(perplexity, rel=1e-12)
        assert record["splits"]["train"]["code_usage"][i] == pytest.approx(len(counts) / k, rel=1e-12)


@pytest.mark.parametrize(
    ("num_embeddings", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32"), (1 << 20, "int32")],
)
def test_the_smallest_type_that_holds_the_last_code(num_embeddings: int, dtype: str) -> None:
    assert code_dtype(num_embeddings) == np.dtype(dtype)
    assert np.array(num_embeddings - 1).astype(code_dtype(num_embeddings)) == num_embeddings - 1


def test_codes_without_labels_and_without_bits(tmp_path: Path) -> None:
    spec = replace(SPEC, num_classes=0, bits_per_dim=None)
    write_codes(tmp_path / "codes", spec)
    manifest = read_manifest(tmp_path / "codes")
    assert manifest.spec.bits_per_dim is None
    assert open_split(tmp_path / "codes", manifest, "val").read(torch.arange(3)).y.tolist() == [-1] * 3


def test_an_error_or_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def fail_after(root: Path, error: type[BaseException]) -> None:
        with CodeWriter(root, SPEC) as writer:
            writer.write("train", 20, in_batches(made_up(SPEC, 20)))
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fail_after(tmp_path / "codes", error)
        assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    stale = tmp_path / "codes.partial" / "train"
    stale.mkdir(parents=True)
    (stale / "level_9.npy").write_bytes(b"")
    write_codes(tmp_path / "codes")
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]
    assert not (tmp_path / "codes" / "train" / "level_9.npy").exists()


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        CodeWriter(tmp_path, SPEC)
    assert str(error.value) == (
        f"CodeWriter: root (={str(tmp_path)!r}) must not exist yet. Remove it or choose another --out."
    )


@pytest.mark.parametrize(
    ("num_images", "change", "message"),
    [
        (0, {}, r"num_images \(=0\) of train must be positive\. Leave the split out\."),
        (21, {}, r"num_images \(=21\) must be the number of train images, but 20 came\. Count again\."),
        (19, {}, r"num_images \(=19\) must be the number of train images, but more came\. Count again\."),
        (20, {"grids": ((1, 2), (3, 2))}, r"codes of shapes .*\(6, 2, 3\)\] must be .*\(6, 3, 2\)\]\. Check spec"),
        (20, {"grids": ((1, 2),), "num_embeddings": (4,)}, r"codes of shapes .* must be of shapes \[\(6, 1, 2\)\]"),
        (20, {"num_embeddings": (2, 300)}, r"codes \(=0 to 3\) must be between 0 and 1\. Give num_embeddings \(=2\)"),
    ],
)
def test_codes_that_are_not_those_of_the_spec(tmp_path: Path, num_images: int, change: dict, message: str) -> None:
    batches = in_batches(made_up(SPEC, 20))
    with (
        pytest.raises(ValueError, match=message),
        CodeWriter(tmp_path / "codes", replace(SPEC, **change)) as writer,
    ):
        writer.write("train", num_images, batches)
    assert not list(tmp_path.iterdir())


def test_a_distortion_that_is_not_finite(tmp_path: Path) -> None:
    batches = [(made_up(SPEC, 2), torch.tensor([1.0, math.nan]))]
    with (
        pytest.raises(ValueError, match=r"CodeWriter: distortion \(=nan\) of val must be finite\. The model has div"),
        CodeWriter(tmp_path / "codes", SPEC) as writer,
    ):
        writer.write("val", 2, batches)


def array(name: str, made: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        np.save(root / name, made(np.load(root / name)))

    return change


def manifest(**changes: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        record = json.loads((root / "codes.json").read_text()) | changes
        kept = {key: value for key, value in record.items() if value != "absent"}
        (root / "codes.json").write_text(json.dumps(kept))

    return change


def cut(root: Path) -> None:
    path = root / "train" / "level_1.npy"
    path.write_bytes(path.read_bytes()[:-1])


def as_archive(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros(20))
    path.with_suffix(".npz").replace(path)


def with_code(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda level: np.where(np.arange(level.size).reshape(level.shape) == 7, code, level).astype(level.dtype)


WRITE = "Write it with: lit-vae encode RUN --out DIR."
NOT_WHOLE = r"codes\.json: not a complete description of codes "


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda root: (root / "codes.json").unlink(),
            FileNotFoundError,
            r"^Codes: root \(='.*codes'\) contains no codes\.",
        ),
        (lambda root: (root / "codes.json").write_text("{"), ValueError, NOT_WHOLE),
        (manifest(grids="absent"), ValueError, NOT_WHOLE + r"\(KeyError\('grids'\)\)\."),
        (manifest(grids=[[1, 2]]), ValueError, NOT_WHOLE + r".*same number of levels everywhere"),
        (manifest(num_embeddings=[4, 0]), ValueError, NOT_WHOLE + r".*must be positive"),
        (manifest(num_embeddings=[4, math.inf]), ValueError, NOT_WHOLE),
        (manifest(checkpoint={"path": 3, "sha256": None}), ValueError, NOT_WHOLE + r".*must be text"),
        (
            manifest(
                splits={"train": {"num_images": 1, "distortion": math.nan, "perplexity": [1, 1], "code_usage": [1, 1]}}
            ),
            ValueError,
            NOT_WHOLE + r".*distortion is not finite",
        ),
        (lambda root: (root / "codes.json").write_text("[1, 2]"), ValueError, NOT_WHOLE),
        (lambda root: (root / "codes.json").write_text("[" * 100_000), ValueError, NOT_WHOLE),
        (lambda root: (root / "codes.json").write_bytes(b"\xff\xfe"), ValueError, NOT_WHOLE),
        (
            lambda root: as_archive(root / "train/labels.npy"),
            ValueError,
            "archive of arrays",
        ),
        (
            lambda root: np.save(root / "train/labels.npy", np.array([print] * 20)),
            ValueError,
            "labels.npy: not a complete",
        ),
        (
            manifest(format=2),
            ValueError,
            r"codes\.json: format \(=2\) must be 1; another version of lit_vae wrote it\.",
        ),
        (manifest(splits={}), FileNotFoundError, r"root \(=.*\) must contain the split train, but contains nothing\."),
        (
            lambda root: (root / "train/level_1.npy").unlink(),
            FileNotFoundError,
            r"train/level_1\.npy: the file is missing",
        ),
        (
            lambda root: (root / "train/labels.npy").unlink(),
            FileNotFoundError,
            r"train/labels\.npy: the file is missing",
        ),
        (cut, ValueError, r"train/level_1\.npy: not a complete array \("),
        (
            lambda root: (root / "train/level_0.npy").write_bytes(b""),
            ValueError,
            r"level_0\.npy: not a complete array \(",
        ),
        (
            array("train/level_0.npy", lambda a: a[1:]),
            ValueError,
            r"contains uint8 \(19, 1, 2\), expected uint8 \(20, 1, 2\)",
        ),
        (
            array("train/level_1.npy", lambda a: a.astype(int)),
            ValueError,
            r"contains int64 \(20, 2, 3\), expected uint16 \(",
        ),
        (
            array("train/level_1.npy", with_code(300)),
            ValueError,
            r"level_1\.npy: values \(=\d+ to 300\) must be between 0 and 299: num_embeddings \(=300\)\.",
        ),
        (
            array("train/labels.npy", lambda a: a - 1),
            ValueError,
            r"labels\.npy: values \(=-1 to 18\) must be between 0 and 99: num_classes \(=100\)\.",
        ),
    ],
)
def test_whatever_is_wrong_with_a_folder_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    root = tmp_path / "codes"
    write_codes(root)
    spoil(root)
    with pytest.raises(error, match=message) as told:
        open_split(root, read_manifest(root), "train")
    assert WRITE in str(told.value)
