"""Inception, with random weights in a file of the published form: the same features and distances as two libraries."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_vae.data import ImageFolder
from lit_vae.features import Inception
from lit_vae.images import levels
from lit_vae.metrics import FeatureStatistics, Frechet, Kernel

N = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of small PNGs that differ in colour and in smoothness."""
    random = np.random.default_rng(0)
    made = []
    for name, size, most in (("real", 8, 256), ("fake", 32, 180)):
        folder = tmp_path_factory.mktemp(name)
        for i in range(N):
            pixels = random.integers(most, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{i:02}.png")
        made.append(folder)
    return made


def images(folder: Path) -> Tensor:
    """The images of a folder, by the project's own way of reading them."""
    data = ImageFolder(str(folder), size=32, num_val=1, num_test=1, batch_size=8)
    parts = [levels(x, "uint8") for split in ("train", "val", "test") for x, _ in data.ordered_dataloader(split)]
    return torch.cat(parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_distances_of_two_folders_are_those_of_torch_fidelity_and_torchmetrics(inception_file, folders):
    features = Inception(str(inception_file))
    sets = []
    for folder in folders:
        statistics = FeatureStatistics(features.num_features, keep=True)
        for u in images(folder).split(7):
            statistics.update(features(u))
        sets.append(statistics.compute())
    real, fake = sets
    assert real.num_images == N
    ours = float(Frechet()(real, fake)["fd"])
    theirs = torch_fidelity.calculate_metrics(
        input1=str(folders[1]), input2=str(folders[0]), cuda=False, verbose=False, cache=False, fid=True, kid=True,
        kid_subsets=1, kid_subset_size=N, feature_extractor_weights_path=str(inception_file), num_workers=0,
    )  # fmt: skip
    assert ours > 1.0
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert float(Kernel()(real, fake)["kd"]) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)

    # by default torchmetrics resizes in another way than the graph that the FID is defined by
    metric = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(inception_file), antialias=False)
    for folder, is_real in zip(folders, (True, False), strict=True):
        metric.update(images(folder), real=is_real)
    assert ours == pytest.approx(float(metric.compute()), rel=1e-3)
    moments = [s._replace(features=None) for s in sets]
    assert ours == pytest.approx(float(Frechet()(*moments)["fd"]), rel=1e-3)
    assert float(Frechet()(real, real)["fd"]) < 1e-3


def test_features_are_those_of_torch_fidelity(inception_file):
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_file))
    u = torch.randint(256, (3, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = Inception(str(inception_file))
    expected = theirs(u)[0]
    with torch.autocast("cpu", torch.bfloat16):  # whatever the trainer's precision
        got = features(u)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    grey = u[:, :1]
    torch.testing.assert_close(features(grey), features(grey.repeat(1, 3, 1, 1)))
    assert not features.state_dict()


def test_names_say_whose_weights_these_are(inception_file):
    kinds = ("fd", "rfd", "kd", "precision")
    assert [Inception(str(inception_file)).called(kind) for kind in kinds] == [
        *("fid", "rfid", "kid", "precision_inception"),
    ]
    assert Inception("random").called("fd") == "fd_inception_random"
    assert Inception(str(inception_file)).provenance()["weights_sha256"] == inception_file.stem.rpartition("-")[2]
    assert Inception("random").provenance()["weights_sha256"] == "none: random"


def test_mistakes(inception_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (problem,) = Inception().problems((1, 8, 8))
    assert problem.startswith(f"Inception: weights of inception: there is no {tmp_path}")
    assert "Run  lit-vae prepare inception  where there is internet" in problem
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    (problem,) = Inception(str(other)).problems((3, 8, 8))
    assert f"{other} is not {inception_file.name}: its SHA-256 begins with" in problem
    assert Inception(str(inception_file)).problems((3, 8, 8)) == []
    (problem,) = Inception(str(inception_file)).problems((2, 8, 8))
    assert problem == "Inception: it takes images of 1 or 3 channels, not of 2. Leave it out."


def test_its_float32_has_all_digits_and_nobody_elses_setting_changes(inception_file):
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    inside = []

    class Look(torch.nn.Module):
        def forward(self, x):
            inside.append((conv.fp32_precision, matmul.fp32_precision, torch.is_autocast_enabled("cpu")))
            return (torch.zeros(len(x), 2048),)

    features = Inception(str(inception_file))
    features.seen_by._held = (Look(),)
    with torch.autocast("cpu", torch.bfloat16):
        features(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert inside == [("ieee", "ieee", False)]
    assert (conv.fp32_precision, matmul.fp32_precision) == before


def test_an_image_that_is_not_finite_has_no_features(inception_file):
    features = Inception(str(inception_file))
    features.seen_by._held = (torch.nn.Sequential(torch.nn.Flatten(), One()),)
    x = torch.zeros(3, 3, 8, 8)
    x[1, 0, 0, 0] = torch.nan
    found = features.of(x, "uint8")
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


class One(torch.nn.Module):
    def forward(self, x):
        return (x.float(),)
