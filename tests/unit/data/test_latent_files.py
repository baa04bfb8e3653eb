"""A folder of latents: what is written is read, and whatever is wrong with it is told."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_up_latents import SIZES, SPEC, layout_of, write_latents
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor

from lit_vae.data.latent_files import (
    LatentWriter,
    Layout,
    Posteriors,
    open_split,
    read_manifest,
    shards_of,
)

WRITE = "Write it with: lit-vae encode RUN --out DIR."


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = write_latents(tmp_path / "latents")
    manifest = read_manifest(tmp_path / "latents")
    assert manifest.spec == SPEC
    assert not SPEC.has_meaningful_likelihood
    for split, tensors in made.items():
        files = open_split(tmp_path / "latents", manifest, split)
        assert len(files) == SIZES[split]
        assert torch.equal(files.classes(), tensors["labels"])
        rows = torch.randperm(SIZES[split], generator=torch.Generator().manual_seed(1))
        read = files.read(rows)
        expected = Posteriors(*(tensors[name][rows] for name in ("mean", "log_var", "labels")), rows)
        assert all(map(torch.equal, read, expected))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latents"]


def test_in_training_each_visit_takes_an_image_or_its_mirror_image(tmp_path: Path) -> None:
    made = write_latents(tmp_path / "latents")["train"]
    manifest, rows = read_manifest(tmp_path / "latents"), torch.arange(20).flip(0)
    seen = []
    for epoch in range(40):
        mean, log_var, _, _ = open_split(tmp_path / "latents", manifest, "train", seed=3).read(rows, epoch)
        mirrored = (mean == made["mean_mirrored"][rows]).flatten(1).all(1)
        wide = mirrored.view(-1, 1, 1, 1)
        assert torch.equal(mean, torch.where(wide, made["mean_mirrored"][rows], made["mean"][rows]))
        assert torch.equal(log_var, torch.where(wide, made["log_var_mirrored"][rows], made["log_var"][rows]))
        seen.append(mirrored)
        alone = open_split(tmp_path / "latents", manifest, "train", seed=3).read(rows[4:5], epoch)
        assert torch.equal(alone.mean, mean[4:5])
    share = torch.stack(seen).double()
    assert abs(float(share.mean()) - 0.5) < 4 * 0.5 / 800**0.5
    assert 0.0 < float(share.mean(0).min()) < float(share.mean(0).max()) < 1.0  # each image both ways
    other = open_split(tmp_path / "latents", manifest, "train", seed=4).read(rows, 0)
    assert not torch.equal(other.mean, open_split(tmp_path / "latents", manifest, "train", seed=3).read(rows, 0).mean)


def test_one_line_of_numpy_reads_a_file(tmp_path: Path) -> None:
    made = write_latents(tmp_path / "latents")["train"]
    tensors = load_file(tmp_path / "latents" / "train-00001.safetensors")
    assert sorted(tensors) == ["labels", "log_var", "log_var_mirrored", "mean", "mean_mirrored"]
    for name, array in tensors.items():
        assert torch.equal(torch.from_numpy(array), made[name][6:12])


def test_the_documented_conversion_gives_draws_of_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_latents(tmp_path / "DIR")["train"]
    documented = (Path(__file__).resolve().parents[3] / "docs" / "latents.md").read_text()
    exec(re.findall(r"```python\n(from .*?)```", documented, re.S)[0], {})
    files = sorted((tmp_path / "DIR-lightningdit").glob("*.safetensors"))
    parts = [load_file(path) for path in files]
    assert [sorted(part) for part in parts] == [["labels", "latents", "latents_flip"]] * 4
    for name, side in (("latents", ""), ("latents_flip", "_mirrored")):
        drawn = torch.cat([torch.from_numpy(part[name]) for part in parts])
        eps = (drawn - made[f"mean{side}"]) * torch.exp(-0.5 * made[f"log_var{side}"])
        assert abs(float(eps.square().mean()) - 1.0) < 6 * (2 / eps.numel()) ** 0.5
    stats = torch.load(tmp_path / "DIR-lightningdit" / "latents_stats.pt", weights_only=True)
    assert torch.equal(stats["std"], torch.tensor(SPEC.std).view(1, 2, 1, 1))


def anonymous_memory() -> int:
    """Bytes of this process that are not mapped from a file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0])


def test_a_batch_reads_only_its_rows(tmp_path: Path) -> None:
    layout = Layout(num_images=2048, shard_size=2048, mirrors=False, images="")
    (shard,) = shards_of(tmp_path, "train", layout, (4, 32, 32), "")
    posteriors = torch.zeros(2, 2048, 4, 32, 32)
    shard.write({"labels": torch.zeros(2048, dtype=torch.int64), "mean": posteriors[0], "log_var": posteriors[1]})
    before = anonymous_memory()
    tensors = shard.read()
    assert tensors["mean"][torch.tensor([5, 2000])].shape == (2, 4, 32, 32)
    assert anonymous_memory() - before < 8 << 20  # of 64 MiB
    assert shard.is_written


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        LatentWriter(tmp_path)
    assert str(error.value) == (
        f"LatentWriter: root (={str(tmp_path)!r}) must not exist yet. Remove it or choose another --out."
    )


def manifest(**changes: object) -> Callable[[Path], None]:
    """Change keys of the description, or of its training split."""

    def change(root: Path) -> None:
        record = json.loads((root / "latents.json").read_text())
        for key, value in changes.items():
            (record["splits"]["train"] if key in record["splits"]["train"] else record)[key] = value
        (root / "latents.json").write_text(json.dumps(record))

    return change


def shard(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], metadata: dict[str, str] | None = None
) -> Callable[[Path], None]:
    """Change the second file of the training split."""

    def rewrite(root: Path) -> None:
        one = shards_of(root, "train", layout_of("train", True), SPEC.shape, SPEC.checkpoint_sha256)[1]
        tensors = {name: tensor.clone() for name, tensor in one.read().items()}
        one.path.unlink()
        save_file(change(tensors), one.path, {"origin": one.origin} if metadata is None else metadata)

    return rewrite


def cut(root: Path) -> None:
    path = root / "train-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


NOT_WHOLE = r"latents\.json: not a complete description of latents \("


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda root: (root / "latents.json").unlink(), FileNotFoundError,
         r"^Latents: root \(='.*latents'\) contains no latents\.json\."),
        (lambda root: (root / "latents.json").write_text("{"), ValueError, NOT_WHOLE),
        (manifest(format=2), ValueError, r"format \(=2\) must be 1; another version of lit_vae wrote it\."),
        (manifest(shape=[3, 2, 3]), ValueError, NOT_WHOLE + ".*must be numbers of 3 channels"),
        (manifest(std=[1.0, 0.0]), ValueError, NOT_WHOLE + ".*std positive"),
        (manifest(mean=[1.0, float("nan")]), ValueError, NOT_WHOLE + ".*a mean is not finite"),
        (manifest(entropy=None), ValueError, NOT_WHOLE + ".*entropy or none, but val and test have one"),
        (manifest(entropy=float("nan")), ValueError, NOT_WHOLE + ".*an entropy is not finite"),
        (manifest(shard_size=0), ValueError, NOT_WHOLE + ".*must be positive"),
        (manifest(splits={}), ValueError, NOT_WHOLE + r"KeyError\('train'\)"),
        (lambda root: (root / "train-00003.safetensors").unlink(), FileNotFoundError,
         r"train-00003\.safetensors: the file is missing, but latents\.json lists its split\."),
        (cut, ValueError, r"train-00001\.safetensors: not a complete file of latents \("),
        (lambda root: (root / "train-00000.safetensors").write_bytes(b""), ValueError, r"00000.*not a complete file"),
        (lambda root: (root / "train-00000.safetensors").write_bytes(b"x" * 99), ValueError, "not a complete file"),
        (shard(lambda t: {**t, "mean": t["mean"][1:]}), ValueError,
         r"contains .*mean float32 \(5, 2, 2, 3\).*, expected .*mean float32 \(6, 2, 2, 3\)"),
        (shard(lambda t: {**t, "mean": t["mean"].half()}), ValueError, r"contains .*mean float16 \(6, 2, 2, 3\)"),
        (shard(lambda t: {name: t[name] for name in ("labels", "mean")}), ValueError, "contains labels .*, expected "),
        (shard(lambda t: {**t, "labels": t["labels"] + 95}), ValueError,
         r"values \(=101 to 106\) must be between 0 and 99: num_classes \(=100\)\."),
        (manifest(checkpoint={"path": "a.ckpt", "sha256": "cd" * 32}), ValueError,
         "00000.safetensors: its latents are of checkpoint abababababababab and images train images, but latents.json"
         " describes those of checkpoint cdcdcdcdcdcdcdcd and images train images."),
        (manifest(images="other images"), ValueError, "describes those of checkpoint .* and images other images"),
        (shard(lambda t: t, {}), ValueError, "its latents are of an unknown model, but latents.json describes"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_with_a_folder_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    root = tmp_path / "latents"
    write_latents(root)
    spoil(root)
    with pytest.raises(error, match=message) as told:
        open_split(root, read_manifest(root), "train")
    assert WRITE in str(told.value)


def test_a_split_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents")
    with pytest.raises(FileNotFoundError, match=r"must contain the split more, but contains train, val, test\. Write"):
        open_split(tmp_path / "latents", read_manifest(tmp_path / "latents"), "more")
