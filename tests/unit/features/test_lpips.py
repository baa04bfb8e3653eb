"""LPIPS against the two packages that publish it, on the same random trunk; its gradient where theirs is undefined."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from lit_vae.features import LPIPS, weights
from lit_vae.features.lpips import SHIFT, TRUNKS

pytestmark = pytest.mark.filterwarnings("ignore:LPIPS. weights .='random'.:UserWarning")
NETWORKS = ["vgg16", "alexnet"]
SIZE = 35


@pytest.fixture(scope="module", params=NETWORKS)
def distance(request: pytest.FixtureRequest) -> LPIPS:
    return LPIPS(request.param, weights="random")


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, SIZE, SIZE, generator=generator) * 2.0 - 1.0
    noise = torch.randn(x.shape, generator=generator)
    return x, (x + torch.tensor([0.05, 0.5]).view(2, 1, 1, 1) * noise).clamp(-1.0, 1.0)


def copy_trunk(ours: LPIPS, theirs: nn.Module) -> None:
    slices: nn.ModuleList = ours.trunk.network.slices  # type: ignore[assignment]
    for number, layers in enumerate(slices, 1):
        pairs = zip(getattr(theirs, f"slice{number}").parameters(), layers.parameters(), strict=True)
        for parameter, value in pairs:
            parameter.data.copy_(value)


@pytest.fixture
def meta_trunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers build torchvision's whole networks, whose classifiers take a second to initialise."""
    for name in NETWORKS:
        built = getattr(models, name)

        def features_only(*args: object, built=built, **kwargs: object) -> nn.Module:
            with torch.device("meta"):
                network = built()
            network.features.to_empty(device="cpu")
            return network

        monkeypatch.setattr(models, name, features_only)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the package
@pytest.mark.usefixtures("meta_trunks")
def test_it_is_the_function_of_the_package(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    import lpips

    package = lpips.LPIPS(net=TRUNKS[distance.network].short_name, pnet_rand=True, verbose=False)
    copy_trunk(distance, package.net)
    x, x_hat = images
    torch.testing.assert_close(distance(x, x_hat), package(x, x_hat).flatten(), rtol=1e-5, atol=0.0)
    ours, theirs = x_hat.clone().requires_grad_(), x_hat.clone().requires_grad_()
    distance(x, ours).sum().backward()
    package(x, theirs).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


@pytest.mark.usefixtures("meta_trunks")
def test_it_is_the_function_of_torchmetrics(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS

    peer = _LPIPS(net=TRUNKS[distance.network].short_name, pnet_rand=True)
    copy_trunk(distance, peer.net)
    x, x_hat = images
    torch.testing.assert_close(distance(x, x_hat), peer(x, x_hat).flatten(), rtol=1e-5, atol=0.0)


def test_a_distance_to_kept_features_is_the_same(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = images
    with torch.no_grad():
        target = distance.embed(x)
    assert torch.equal(distance.distance(target, x_hat), distance(x, x_hat))
    for features in target:
        lengths = features.norm(dim=1)
        assert ((lengths - 1.0).abs() < 1e-4).logical_or(lengths < 1e-3).all()


def test_the_gradient_is_finite_where_the_images_agree_and_not_zero_elsewhere(
    distance: LPIPS, images: tuple[Tensor, Tensor]
) -> None:
    x, x_hat = images
    flat = torch.tensor(SHIFT).view(1, 3, 1, 1).expand_as(x)  # with this trunk all features of it are zero
    assert not any(features.any() for features in distance.embed(flat))
    for target, image, is_zero in ((x, x, True), (flat, flat, True), (x, x_hat, False)):
        given = image.clone().requires_grad_()
        value = distance(target, given)
        value.sum().backward()
        assert given.grad is not None
        assert given.grad.isfinite().all()
        assert (given.grad.abs().max() < 1e-6) == is_zero
        assert (value.abs().max() < 1e-10) == is_zero


def test_the_target_takes_no_gradient(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = (image.clone().requires_grad_() for image in images)
    distance(x, x_hat).sum().backward()
    assert x.grad is None
    assert not list(distance.parameters())
    assert not distance.state_dict()


def test_grey_images_are_repeated(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = (image[:, :1] for image in images)
    torch.testing.assert_close(distance(x, x_hat), distance(x.repeat(1, 3, 1, 1), x_hat.repeat(1, 3, 1, 1)))


def test_under_autocast_lengths_and_differences_are_in_float32(distance: LPIPS, images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(features.dtype == torch.float32 for features in distance.embed(x))
        value = distance(x, x_hat)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, distance(x, x_hat), rtol=0.05, atol=0.0)


def test_a_random_trunk_says_so_and_is_always_the_same(images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = images
    assert LPIPS("vgg16").name == "lpips_vgg"
    assert LPIPS("alexnet").name == "lpips_alex"
    values = []
    for seed in range(2):
        torch.manual_seed(seed)
        distance = LPIPS("alexnet", weights="random")
        assert distance.name == "lpips_alex_random"
        with pytest.warns(UserWarning, match=r"weights \(='random'\) of alexnet: the numbers are not LPIPS"):
            assert not distance.problems((3, SIZE, SIZE))
        values.append(distance(x, x_hat))
    assert torch.equal(*values)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_image_is_the_smallest_that_does(name: str) -> None:
    distance, smallest = LPIPS(name, weights="random"), TRUNKS[name].smallest_size
    x = torch.zeros(1, 3, smallest, smallest)
    assert distance(x, x).isfinite().all()
    with pytest.raises(RuntimeError):
        distance(x[..., 1:], x[..., 1:])
    (problem,) = distance.problems((3, 64, smallest - 1))
    assert f"needs images of at least {smallest} x {smallest} pixels, not 64 x {smallest - 1}" in problem
    (problem,) = distance.problems((2, 64, 64))
    assert "images of 1 or 3 channels, not of 2" in problem


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LPIPS: network \(='vgg'\) must be one of vgg16, alexnet"):
        LPIPS("vgg")  # type: ignore[arg-type]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of a whole AlexNet's form, which is the published one as far as its hash goes; a cache without it."""
    generator = torch.Generator().manual_seed(5)
    with torch.device("meta"):
        features = models.alexnet().features
    state = {
        f"features.{name}": 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in features.state_dict().items()
    }
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, tmp_path / "file.pth")
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(weights.PUBLISHED, "alexnet", weights.Published(f"https://a.b/alexnet-{digest[:8]}.pth"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "file.pth"


def test_weights_come_from_a_path_or_from_the_cache(published: Path, images: tuple[Tensor, Tensor]) -> None:
    x, x_hat = images
    by_path = LPIPS("alexnet", weights=str(published))
    assert by_path.name == "lpips_alex"
    first = torch.load(published)["features.0.weight"]
    slices: nn.ModuleList = by_path.trunk.network.slices  # type: ignore[assignment]
    torch.testing.assert_close(next(slices.parameters()).data, first)

    (problem,) = LPIPS("alexnet").problems((3, SIZE, SIZE))
    cached = weights.cache_path("alexnet")
    assert f"LPIPS: weights of alexnet: there is no {cached}. Run  lit-vae prepare alexnet  where" in problem
    with pytest.raises(ValueError, match=re.escape(str(cached))):
        LPIPS("alexnet")(x, x_hat)
    cached.parent.mkdir(parents=True)
    published.rename(cached)
    assert torch.equal(LPIPS("alexnet")(x, x_hat), by_path(x, x_hat))


def test_another_file_is_no_lpips(published: Path) -> None:
    published.write_bytes(published.read_bytes() + b"0")
    (problem,) = LPIPS("alexnet", weights=str(published)).problems((3, SIZE, SIZE))
    assert re.search(r"file.pth is not alexnet-\w{8}.pth: its SHA-256 begins with \w{8}, not \w{8}. Delete", problem)


def test_the_published_files_are_those_of_torchvision() -> None:
    for name, enumeration in (("vgg16", models.VGG16_Weights), ("alexnet", models.AlexNet_Weights)):
        assert weights.PUBLISHED[name].url == enumeration.IMAGENET1K_V1.url
    assert weights.PUBLISHED["alexnet"].sha256_prefix == "7be5be79"
