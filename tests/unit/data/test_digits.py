import pytest
import torch
from data_helpers import levels
from sklearn.datasets import load_digits

from lit_vae.data import Digits
from lit_vae.images import ImageSpec


def test_the_splits_are_a_stratified_partition() -> None:
    data = Digits()
    sources = {split: data.source(split) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    assert {split: len(source) for split, source in sources.items()} == {"train": 1437, "val": 180, "test": 180}
    ids = torch.cat([source.ids for source in sources.values()])  # type: ignore[attr-defined]
    assert torch.equal(ids.sort().values, torch.arange(1797))
    for split in ("val", "test"):
        counts = sources[split].labels.bincount()  # type: ignore[attr-defined]
        assert counts.min() >= 17
        assert counts.max() <= 19


def test_levels_are_rounded_to_eight_bits() -> None:
    data = Digits()
    source = data.source("train")
    digits = load_digits()
    original = torch.from_numpy(digits.images)[source.ids]  # type: ignore[attr-defined]
    assert torch.equal(source.images[:, 0], (original * 255 / 16).round().to(torch.uint8))  # type: ignore[attr-defined]
    assert torch.equal(source.labels, torch.from_numpy(digits.target)[source.ids])  # type: ignore[attr-defined]
    assert torch.equal(levels(data.example_batch(len(source), "train").x), source.images)  # type: ignore[attr-defined]


def test_splits_are_stable_in_the_seed() -> None:
    assert torch.equal(Digits().source("val").ids, Digits().source("val").ids)  # type: ignore[attr-defined]
    assert not torch.equal(Digits().source("val").ids, Digits(seed=1).source("val").ids)  # type: ignore[attr-defined]


def test_spec() -> None:
    assert Digits().spec == ImageSpec(1, 8, 8, 10, "uint8")
    assert Digits(binarization="dynamic").spec.values == "binary"
    assert Digits(dequantize=True).spec.values == "dequantized"


def test_errors() -> None:
    with pytest.raises(ValueError) as error:
        Digits(binarization="larochelle")  # type: ignore[arg-type]
    assert str(error.value) == "Digits: binarization (='larochelle') must be one of dynamic, static, threshold, null."
    with pytest.raises(ValueError) as error:
        Digits(num_val=3, binarization="static", dequantize=True)
    assert str(error.value).splitlines() == [
        "Digits: num_val (=3) must be 10 or more: one image of each class. Change data.init_args.num_val.",
        "Digits: dequantize (=True) must be false if binarization (='static') is set. "
        "Change data.init_args.dequantize.",
    ]
    with pytest.raises(ValueError) as error:
        Digits(num_val=1000, num_test=900)
    assert str(error.value) == (
        "Digits: num_val (=1000) + num_test (=900) must be less than the number of images (=1797). "
        "Lower data.init_args.num_val."
    )
