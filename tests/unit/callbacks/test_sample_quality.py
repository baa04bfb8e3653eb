"""Distances between samples and real images, as they are logged, against the same numbers of all images at once."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from callbacks import EMA, ReconstructionFrechet, SampleQuality
from callbacks.references import reference_folder, reference_set
from callbacks.sample_quality import AT_ONCE, at_once
from lit_vae.data import FakeImages
from lit_vae.features import ImageFeatures
from lit_vae.images import to_uint8
from lit_vae.metrics import DensityCoverage, FeatureSet, Frechet, Kernel, PrecisionRecall, frechet_distance
from lit_vae.ranks import all_agree


class Corner(ImageFeatures):
    """The levels of nine pixels; counts the images that it has seen."""

    name = "corner"
    num_features = 9
    version = "1"

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, u: Tensor) -> Tensor:
        assert u.dtype == torch.uint8
        self.seen += len(u)
        return u[:, 0, :3, :3].flatten(1).float()

    def provenance(self) -> dict[str, str]:
        return {"features": "nine pixels", "weights_sha256": self.version}


class Blind(Corner):
    def problems(self, image_shape: tuple[int, ...]) -> list[str]:
        return [f"Blind: not for {image_shape}."]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LIT_VAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


def moments(features: Tensor) -> FeatureSet:
    features = features.double()
    return FeatureSet(len(features), features.mean(0), features.T.cov())


def expected(model, data, split: str, n: int, seed: int) -> float:
    """The number of all images at once."""
    corner = Corner()
    real = torch.cat([corner(to_uint8(x)) for x, _ in data.ordered_dataloader(split)])
    starts = range(0, n, AT_ONCE)
    seeds = torch.randint(2**31, (len(starts),), generator=torch.Generator().manual_seed(seed)).tolist()
    y = model.labels_for(n, None)
    parts = []
    for start, own in zip(starts, seeds, strict=True):
        labels = y[start : start + AT_ONCE]
        parts.append(model.eval().sample(len(labels), labels, 1.0, torch.Generator().manual_seed(own)))
    return float(frechet_distance(moments(real), moments(corner(to_uint8(torch.cat(parts))))))


@pytest.mark.parametrize("family", ["AE", "VAE", "CVAE"])
@torch.no_grad()
def test_it_logs_the_number_of_all_samples(family, new_model, new_trainer, data):
    model, corner = new_model(family), Corner()
    trainer = new_trainer(SampleQuality(corner, num_images=150, reference="test", seed=3))
    trainer.test(model, datamodule=data, verbose=False)
    got = trainer.callback_metrics["test/fd_corner"].item()
    assert got == pytest.approx(expected(model, data, "test", 150, 3), rel=1e-5)
    assert corner.seen == 150 + 20
    (name, protocol), *_ = trainer.callbacks[0].protocols.items()
    assert name == "fd_corner"
    assert protocol.pop("seconds") >= 0
    assert protocol.pop("reference_fingerprint") == data.fingerprint("test")
    assert protocol == {
        "num_images": 150,
        "seed": 3,
        "labels": "each class in turn" if family == "CVAE" else "none",
        "reference": "FakeImages test",
        "reference_images": 20,
        "features": "nine pixels",
        "weights_sha256": "1",
    }


def test_at_validations_it_takes_fewer_and_the_averaged_weights(new_model, new_trainer, data):
    seen = {}

    class Look(SampleQuality):
        def on_validation_epoch_end(self, trainer, pl_module):
            super().on_validation_epoch_end(trainer, pl_module)
            if self.due(trainer):
                seen[trainer.current_epoch] = expected(pl_module, data, "train", 30, 0)

    plain = new_trainer(SampleQuality(Corner(), num_images=30, every_n_epochs=3), max_epochs=3)
    torch.manual_seed(0)
    plain.fit(new_model("VAE"), datamodule=data)
    look = Look(Corner(), num_images=200, num_val_images=30, every_n_epochs=2)
    trainer = new_trainer(look, EMA(decay=0.5), max_epochs=3)
    torch.manual_seed(0)
    trainer.fit(new_model("VAE"), datamodule=data)
    assert list(seen) == [1, 2]  # of epochs 0, 1, 2: every second, and the last
    assert trainer.callback_metrics["val/fd_corner"].item() == pytest.approx(seen[2], rel=1e-5)
    assert seen[2] != pytest.approx(plain.callback_metrics["val/fd_corner"].item(), rel=1e-3)  # of the last weights
    assert look.protocols["fd_corner"]["num_images"] == 30


def test_real_images_are_looked_at_once_for_all_runs(new_model, new_trainer, data, cache):
    def test(corner: Corner, *distances) -> float:
        trainer = new_trainer(SampleQuality(corner, list(distances), num_images=50, reference="test"))
        trainer.test(new_model("VAE"), datamodule=data, verbose=False)
        return trainer.callback_metrics["test/fd_corner"].item()

    def files() -> set[str]:
        return {path.name for path in cache.iterdir()}

    first, second = Corner(), Corner()
    value = test(first, Frechet())
    (name,) = files()
    assert name.startswith("FakeImages-test-corner-")
    assert name.endswith("-moments.pt")
    assert test(second, Frechet()) == value
    assert (first.seen, second.seen) == (70, 50)

    third, fourth = Corner(), Corner()  # the features themselves are wanted, too
    assert test(third, Frechet(), Kernel(), PrecisionRecall(2)) == pytest.approx(value)
    assert test(fourth, Frechet(), PrecisionRecall(2)) == value
    assert (third.seen, fourth.seen) == (70, 50)
    assert files() == {name, name.replace("moments", "features-20")}

    other = Corner()
    other.version = "2"
    test(other, Frechet())
    assert other.seen == 70
    assert len(files()) == 3


def test_of_many_real_images_as_many_are_kept_as_there_are_samples(data):
    corner, device = Corner(), torch.device("cpu")
    real = reference_set(data, "train", corner, 5, device).features
    x = torch.cat([x for x, _ in data.ordered_dataloader("train")])
    assert real.num_images == 24
    torch.testing.assert_close(real.mean, corner(to_uint8(x)).double().mean(0))
    assert torch.equal(real.features, corner(to_uint8(x[[0, 6, 12, 17, 23]])).double())  # spread evenly
    again = reference_set(data, "train", corner, 5, device).features
    assert all(torch.equal(a, b) for a, b in zip(again[1:4], real[1:4], strict=True))


def test_a_cache_that_cannot_be_used_costs_time_and_no_numbers(data, cache, monkeypatch):
    device = torch.device("cpu")
    whole = reference_set(data, "test", Corner(), 0, device).features
    (path,) = cache.iterdir()
    path.write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"moments.pt cannot be read .*; they are computed again"):
        assert torch.equal(reference_set(data, "test", Corner(), 0, device).features.mean, whole.mean)
    cache.parent.joinpath("file").write_text("")
    monkeypatch.setenv("LIT_VAE_CACHE", str(cache.parent / "file"))
    with pytest.warns(UserWarning, match=r"moments.pt cannot be written .*Set LIT_VAE_CACHE to a writable folder"):
        assert torch.equal(reference_set(data, "test", Corner(), 0, device).features.mean, whole.mean)


def test_large_images_are_drawn_a_few_at_a_time():
    assert [at_once((3, size, size)) for size in (8, 64, 128, 256, 1024)] == [100, 100, 25, 6, 1]


def test_a_decoder_that_has_diverged_has_no_number(new_model, new_trainer, data):
    model = new_model("VAE")
    torch.nn.init.constant_(next(model.decoder.parameters()), torch.nan)
    distances = [Frechet(), Kernel(), PrecisionRecall(2), DensityCoverage(2)]
    quality, frechet = SampleQuality(Corner(), distances, num_images=5), ReconstructionFrechet(Corner())
    trainer = new_trainer(quality, frechet)
    trainer.test(model, datamodule=data, verbose=False)
    values = {name: value for name, value in trainer.callback_metrics.items() if "corner" in name}
    assert len(values) == 7
    assert all(value.isnan() for value in values.values())
    assert trainer.callback_metrics["test/elbo"].isnan()


def test_other_images_are_other_references(data, cache):
    def reference(given: FakeImages, split: str) -> str:
        found = reference_set(given, split, Corner(), 0, torch.device("cpu"))
        assert found.provenance["reference_images"] == found.features.num_images
        return found.provenance["reference_fingerprint"]

    few = FakeImages(num_train=24, num_val=20, num_test=19, size=8, num_classes=3, batch_size=8)
    larger = FakeImages(num_train=24, num_val=20, num_test=20, size=9, num_classes=3, batch_size=8)
    again = FakeImages(num_train=24, num_val=20, num_test=20, size=8, num_classes=3, batch_size=5)
    prints = [reference(data, "test"), reference(data, "train"), reference(few, "test"), reference(larger, "test")]
    assert len(set(prints)) == 4
    assert len(list(cache.iterdir())) == 4
    assert reference(again, "test") == prints[0]  # the size of a batch is no matter
    assert len(list(cache.iterdir())) == 4


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:It is recommended to use .self.log")  # of the model's own numbers
@pytest.mark.parametrize("num_images", [250, 40])  # of 40 the second rank draws none
def test_it_does_not_depend_on_the_number_of_ranks(num_images, new_model, new_trainer, tmp_path, monkeypatch):
    def test(**given) -> dict[str, float]:
        monkeypatch.setenv("LIT_VAE_CACHE", str(tmp_path / f"cache {len(given)}"))
        distances = [Frechet(), Kernel(), PrecisionRecall()]
        data = FakeImages(num_train=8, num_val=4, num_test=21, size=8, num_classes=3, batch_size=4)
        trainer = new_trainer(SampleQuality(Corner(), distances, num_images=num_images, reference="test"), **given)
        (numbers,) = trainer.test(new_model("CVAE"), datamodule=data, verbose=False)
        return {name: value for name, value in numbers.items() if "corner" in name}

    one, two = test(), test(strategy="ddp_fork", devices=2)
    assert set(one) == {f"test/{kind}_corner" for kind in ("fd", "kd", "precision", "recall")}
    assert two == pytest.approx(one, rel=1e-6, abs=1e-6)


def test_a_model_in_training_is_left_as_it_was(new_model, new_trainer, data):
    """With and without: the same weights after training."""

    def fit(*callbacks) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = new_model("VAE")
        new_trainer(*callbacks).fit(model, datamodule=data)
        return model.state_dict()

    plain, measured = fit(), fit(SampleQuality(Corner(), num_images=20, every_n_epochs=1))
    assert all(torch.equal(measured[name], value) for name, value in plain.items())


def test_the_cache_lies_where_it_is_told_to(monkeypatch, tmp_path):
    assert reference_folder() == Path(os.environ["LIT_VAE_CACHE"]) / "references"
    monkeypatch.delenv("LIT_VAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert reference_folder() == tmp_path / "lit_vae" / "references"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reference_folder() == tmp_path / ".cache" / "lit_vae" / "references"


def test_one_process_agrees_with_itself():
    assert all_agree(True, torch.device("cpu"))
    assert not all_agree(False, torch.device("cpu"))


def test_what_cannot_be_measured_is_refused_before_training(new_model, new_trainer, data):
    with pytest.raises(ValueError, match=r"SampleQuality: num_images \(=1\) must be at least 2."):
        SampleQuality(Corner(), num_images=1)
    with pytest.raises(ValueError, match=r"SampleQuality: num_val_images \(=0\) must be at least 2."):
        SampleQuality(Corner(), num_val_images=0)
    with pytest.raises(ValueError, match=r"SampleQuality: Blind: not for \(1, 8, 8\). Or remove it from trainer.callb"):
        new_trainer(SampleQuality(Blind())).fit(new_model("VAE"), datamodule=data)
    with pytest.raises(ValueError, match=r"SampleQuality: distances has one of them twice, under the same name. Set"):
        SampleQuality(Corner(), [PrecisionRecall(1), PrecisionRecall(2)])
    with pytest.raises(
        ValueError, match=r"SampleQuality: PrecisionRecall: neighbours \(=3\) must be less than .*\(=3\)"
    ):
        SampleQuality(Corner(), [PrecisionRecall(3)], num_images=3)
    few = SampleQuality(Corner(), [PrecisionRecall(20)], reference="val")
    with pytest.raises(ValueError, match=r"PrecisionRecall: neighbours \(=20\) must be less than .* of a set \(=20\)"):
        new_trainer(few).fit(new_model("VAE"), datamodule=data)
    dequantized = FakeImages(num_train=24, num_val=20, num_test=20, size=8, values="dequantized", batch_size=8)
    with pytest.raises(ValueError, match=r"ReconstructionFrechet: trainer.precision \(=bf16-true\) rounds dequantised"):
        new_trainer(ReconstructionFrechet(Corner()), precision="bf16-true").fit(
            new_model("VAE"), datamodule=dequantized
        )
    loader = torch.utils.data.DataLoader(torch.zeros(4, 1, 8, 8))
    with pytest.raises(ValueError, match=r"it needs images of a lit_vae.data module; trainer.datamodule is NoneT"):
        new_trainer(SampleQuality(Corner())).fit(new_model("VAE"), loader, loader)
