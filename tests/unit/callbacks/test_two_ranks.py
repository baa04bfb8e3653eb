"""A distributed validation draws the same pictures and logs the same numbers as one process."""

import pytest
import torch
from PIL import Image, ImageChops

import callbacks
from lit_vae.data import FakeImages


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:It is recommended to use .self.log")  # of the model's own numbers
def test_pictures_and_numbers_do_not_depend_on_the_number_of_ranks(new_model, new_trainer, tmp_path):
    def validate(path, **given):
        panels = [
            callbacks.Samples(9, pixels="both"),
            callbacks.ClassSheet(3),
            callbacks.Reconstructions(4),
            callbacks.Traversals(dims=2, steps=3),
            callbacks.Interpolations(pairs=2, steps=3),
            callbacks.LatentScatter(16),
            callbacks.LatentStatistics(every_n_epochs=1),
            callbacks.LatentStructure(every_n_epochs=1),
            callbacks.ImageQuality(),
        ]
        data = FakeImages(num_train=8, num_val=21, num_test=8, size=8, num_classes=3, batch_size=4)  # 11 and 10
        trainer = new_trainer(*panels, default_root_dir=path, **given)
        (numbers,) = trainer.validate(new_model("CVAE"), datamodule=data, verbose=False)
        return numbers

    one = validate(tmp_path / "one")
    two = validate(tmp_path / "two", strategy="ddp_fork", devices=2)
    names = ["val/psnr", "val/ssim_uniform7", "val/mse", "val/active_units", "val/mutual_information"]
    names += ["val/aggregate_kl", "val/kl_per_dim_max", "val/kl_per_dim_mean"]
    names += [f"val/latent_{name}" for name in ("noise", "std_ratio", "probe_accuracy", "gaussian_nats")]
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-6, msg=name)
    pictures = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(pictures) == 8
    for picture in pictures:
        with Image.open(tmp_path / "one" / picture) as a, Image.open(tmp_path / "two" / picture) as b:
            assert ImageChops.difference(a, b).getbbox() is None, picture
