"""What is logged of reconstructions that a frozen network looks at, against the same numbers of all images at once."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from callbacks import ImageQuality, PerceptualDistance, ReconstructionFrechet
from lit_vae import features
from lit_vae.data import FakeImages
from lit_vae.features.classifier import FeatureNetDistance, FeatureNetFeatures
from lit_vae.images import to_uint8
from lit_vae.metrics import FeatureSet, frechet_distance, high_frequency_energy, laplacian_variance
from lit_vae.networks import ResidualFeatures


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network in place of any checkpoint's."""

    def load(checkpoint: str) -> ResidualFeatures:
        torch.manual_seed(0)
        return ResidualFeatures(1, 3, widths=[4, 8])

    monkeypatch.setattr("lit_vae.features.classifier.load_network", load)
    monkeypatch.setattr("lit_vae.run.loading.identity", lambda checkpoint: f"SHA-256 of {checkpoint}")


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("split", ["val", "test"])
def test_they_are_of_all_images(split, new_model, new_trainer, data):
    distance, seen = FeatureNetDistance("x.ckpt"), FeatureNetFeatures("x.ckpt")
    model = new_model("CVAE")
    trainer = new_trainer(PerceptualDistance(distance), ReconstructionFrechet(seen), ImageQuality())
    evaluate = trainer.validate if split == "val" else trainer.test
    evaluate(model, datamodule=data, verbose=False)
    got = {name: value.item() for name, value in trainer.callback_metrics.items()}
    x, y = data.example_batch(20, split)
    with torch.no_grad():
        x_hat = model.eval().reconstruct(x, y)
        expected = distance(x, x_hat).double().mean().item()
    assert got[f"{split}/lpips_featurenet"] == pytest.approx(expected, rel=1e-6)
    real, fake = (seen(to_uint8(images)).double() for images in (x, x_hat))
    moments = (FeatureSet(20, features.mean(0), features.T.cov()) for features in (real, fake))
    assert got[f"{split}/rfd_featurenet"] == pytest.approx(frechet_distance(*moments).item(), rel=1e-5)
    for name, energy in (("sharpness", high_frequency_energy), ("laplacian_ratio", laplacian_variance)):
        ratio = energy(x_hat).sum() / energy(x).sum()
        assert got[f"{split}/{name}"] == pytest.approx(ratio.item(), rel=1e-6)


def test_images_without_fine_structure_have_no_sharpness(new_model, new_trainer):
    data = FakeImages(num_train=4, num_val=4, num_test=4, size=3, num_classes=3, batch_size=4)
    trainer = new_trainer(ImageQuality())
    trainer.test(new_model("AE", size=3), datamodule=data, verbose=False)
    assert "test/mse" in trainer.callback_metrics
    assert "test/sharpness" not in trainer.callback_metrics


@pytest.mark.usefixtures("network")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:It is recommended to use .self.log")  # of the model's own numbers
def test_they_do_not_depend_on_the_number_of_ranks(new_model, new_trainer):
    def validate(**given):
        panels = [
            PerceptualDistance(FeatureNetDistance("x.ckpt")),
            ReconstructionFrechet(FeatureNetFeatures("x.ckpt")),
            ImageQuality(),
        ]
        data = FakeImages(num_train=8, num_val=21, num_test=8, size=8, num_classes=3, batch_size=4)  # 11 and 10
        trainer = new_trainer(*panels, **given)
        (numbers,) = trainer.validate(new_model("CVAE"), datamodule=data, verbose=False)
        return numbers

    one, two = validate(), validate(strategy="ddp_fork", devices=2)
    for name in ("lpips_featurenet", "rfd_featurenet", "sharpness", "laplacian_ratio"):
        torch.testing.assert_close(two[f"val/{name}"], one[f"val/{name}"], rtol=1e-5, atol=1e-7, msg=name)


class Unfit(features.PerceptualDistance):
    name = "unfit"

    def embed(self, x: Tensor) -> list[Tensor]:
        raise AssertionError("it is not asked")

    def distance(self, target: Sequence[Tensor], x_hat: Tensor) -> Tensor:
        raise AssertionError("it is not asked")

    def provenance(self) -> dict[str, str]:
        raise AssertionError("it is not asked")

    def problems(self, image_shape: tuple[int, ...]) -> list[str]:
        return [f"Unfit: not for {image_shape}.", "Unfit: nor for any other."]


def test_what_cannot_be_measured_is_refused_before_training(new_model, new_trainer, data, tmp_path):
    with pytest.raises(ValueError, match=r"PerceptualDistance: Unfit: not for \(1, 8, 8\).\nUnfit: nor .* remove it"):
        new_trainer(PerceptualDistance(Unfit())).fit(new_model("VAE"), datamodule=data)
    missing = FeatureNetFeatures(str(tmp_path / "best.ckpt"))
    with pytest.raises(ValueError, match=r"ReconstructionFrechet: FeatureNetFeatures: checkpoint .* remove it from"):
        new_trainer(ReconstructionFrechet(missing)).fit(new_model("VAE"), datamodule=data)
