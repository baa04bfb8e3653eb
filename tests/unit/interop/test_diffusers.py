"""Weights to diffusers and back: the same latents and reconstructions by networks that somebody else wrote."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from interop_helpers import CONFIG, LATENT, NETWORK, SIZE, at_random, discrete, gaussian, images
from torch import Tensor, nn

from lit_vae.interop import Architecture, export_diffusers, load_into, read_autoencoder
from lit_vae.interop.names import to_diffusers
from lit_vae.likelihoods import Bernoulli, Laplace, PixelGaussian
from lit_vae.models import VAE, KLAutoencoder
from lit_vae.networks import MLP, LDMDecoder, LDMEncoder
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal
from lit_vae.quantizers import Projected, VectorQuantizer

diffusers = pytest.importorskip("diffusers")
Y = torch.full((2,), -1)
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    diffusers.utils.logging.set_verbosity_error()  # that accelerate is not installed


def theirs(**config: Any) -> nn.Module:
    return at_random(diffusers.AutoencoderKL(**{**CONFIG, **config}), 4)


@torch.no_grad()
def same_gaussian(ours: Any, other: Any, **close: float) -> None:
    x = images()
    posterior, expected = ours.encode(x, Y), other.encode(x).latent_dist
    torch.testing.assert_close(posterior.mean, expected.mean, **close)
    torch.testing.assert_close(posterior.log_var, expected.logvar, **close)
    z = expected.mean + 0.5
    torch.testing.assert_close(ours.decode(z, Y).mean, other.decode(z).sample, **close)


def altered(folder: Path, **config: Any) -> Path:
    content = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(content))
    return folder


# ---- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_the_networks_are_those_of_diffusers_to_the_last_digits() -> None:
    """With attention at a resolution, and two resolutions of the same width."""
    ours, other = gaussian(), theirs()
    state = other.state_dict()
    names = [name for name in ours.state_dict() if name.startswith(("encoder.", "decoder."))]
    assert {to_diffusers(name) for name in names} == state.keys()
    ours.load_state_dict({name: state[to_diffusers(name)] for name in names}, strict=False)
    same_gaussian(ours, other, rtol=1e-10, atol=1e-10)


def test_as_many_parameters_as_the_published_autoencoder() -> None:
    """That of Stable Diffusion, by its model card."""
    shapes = Architecture(3, 4, (128, 256, 512, 512), 2).shapes()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 83_653_863


def test_an_export_is_loaded_by_diffusers(tmp_path: Path) -> None:
    ours = gaussian().to(memory_format=torch.channels_last)
    export_diffusers(ours, tmp_path / "new" / "kl", 0.25, -0.5, "# A card\n")
    other, report = diffusers.AutoencoderKL.from_pretrained(tmp_path / "new" / "kl", output_loading_info=True)
    assert not any(report.values())
    same_gaussian(ours, other, **CLOSE)
    assert (other.config.scaling_factor, other.config.shift_factor, other.config.sample_size) == (0.25, -0.5, SIZE)
    assert (tmp_path / "new" / "kl" / "README.md").read_text() == "# A card\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kl"]


@pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16)])
def test_an_export_of_images_that_are_not_square_tiles_larger_ones(height: int, width: int, tmp_path: Path) -> None:
    """In tiles of the longer side, of which diffusers cuts and blends the last quarter."""
    network = {**NETWORK, "attention": []}
    networks = partial(LDMEncoder, **network), partial(LDMDecoder, **network)
    shape, latent = [3, height, width], [4, height // 4, width // 4]
    ours = KLAutoencoder(shape, latent, *networks, Laplace(), ELBO(beta=1e-6), torch.optim.Adam).eval()
    export_diffusers(ours, tmp_path / "kl", 1.0, None, "")
    other = diffusers.AutoencoderKL.from_pretrained(tmp_path / "kl")
    assert other.config.sample_size == 32
    other.enable_tiling()
    generator = torch.Generator().manual_seed(0)
    own, larger = torch.randn(1, *latent, generator=generator), torch.randn(1, 4, 16, 16, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(other.decode(own).sample, ours.decode(own, torch.tensor([-1])).mean, **CLOSE)
        image = other.decode(larger).sample
        assert image.shape == (1, 3, 64, 64)
        tile = other.decode(larger[:, :, :8, :8]).sample
        torch.testing.assert_close(image[:, :, :24, :24], tile[:, :, :24, :24], **CLOSE)
        assert other.encode(image).latent_dist.mean.shape == larger.shape


def test_what_diffusers_saved_is_read(tmp_path: Path) -> None:
    other = theirs(scaling_factor=0.7, shift_factor=0.1)
    other.save_pretrained(tmp_path)
    imported = read_autoencoder(tmp_path)
    assert imported.architecture == Architecture(3, 4, (8, 16, 16), 2, (1,), 4)
    assert imported.architecture.init_args(SIZE) == NETWORK
    assert imported.architecture.latent_shape(SIZE, SIZE) == LATENT
    assert (imported.scaling_factor, imported.shift_factor) == (0.7, 0.1)
    ours = gaussian()
    load_into(ours, tmp_path)
    same_gaussian(ours, other, **CLOSE)


def test_names_of_attention_in_old_files(tmp_path: Path) -> None:
    """As diffusers wrote them until 0.15, as pickled float16."""
    other = theirs().half()
    other.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    state = {renamed(name): value for name, value in other.state_dict().items()}
    assert sum("proj_attn" in name for name in state) == 2 * (2 + 5)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    ours = gaussian()
    load_into(ours, tmp_path)
    same_gaussian(ours, other.float(), **CLOSE)


def test_without_convolutions_at_the_latent(tmp_path: Path) -> None:
    """As in Stable Diffusion 3: those here change nothing."""
    other = theirs(use_quant_conv=False, use_post_quant_conv=False)
    other.save_pretrained(tmp_path)
    ours = gaussian()
    load_into(ours, tmp_path)
    same_gaussian(ours, other, **CLOSE)


@torch.no_grad()
def test_codes_go_both_ways(tmp_path: Path) -> None:
    def same(ours: Any, other: Any) -> None:
        x = images()
        latents = other.encode(x).latents
        torch.testing.assert_close(ours.encoder(x), latents, **CLOSE)
        indices = other.quantize(latents)[2][2].view(2, *LATENT[1:])
        assert torch.equal(ours.encode_codes(x, Y)[0], indices)
        assert len(indices.unique()) > 1
        torch.testing.assert_close(ours.decode(ours.embed(x, Y), Y).mean, other.decode(latents).sample, **CLOSE)

    ours = discrete()
    export_diffusers(ours, tmp_path / "vq", 1.0, None, "")
    other = diffusers.VQModel.from_pretrained(tmp_path / "vq")
    same(ours, other)
    at_random(other, 5).save_pretrained(tmp_path / "theirs")
    load_into(ours, tmp_path / "theirs")
    same(ours, other)
    codebook = ours.quantizers[0].codebook
    torch.testing.assert_close(codebook.sums, codebook.weight)  # a moving average starts at the new codes


# ---- what does not go -----------------------------------------------------------------------------------------------


def vector_vae() -> VAE:
    def network(in_shape: Any, out_shape: Any, cond_dim: int) -> nn.Module:
        return MLP(in_shape, out_shape, cond_dim, hidden=[4])

    arguments = [3, SIZE, SIZE], StandardNormal([2]), network, network, Bernoulli(), ELBO(), torch.optim.Adam
    return VAE(*arguments)


LIKELIHOOD = (
    " Train with a likelihood whose mean is the decoder's output: lit_vae.likelihoods.Laplace, FixedGaussian or"
    " LearnedGaussian."
)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (vector_vae, "VAE to diffusers: its networks are MLP and MLP, which others do not have. Train a model of"
         " lit_vae.networks.LDMEncoder and LDMDecoder."),
        (lambda: gaussian(PixelGaussian()), "KLAutoencoder to diffusers: model.likelihood (=PixelGaussian) takes 6"
         " numbers for each pixel of 3 channels, but diffusers decodes to images only." + LIKELIHOOD),
        (lambda: gaussian(Bernoulli()), "KLAutoencoder to diffusers: the mean of model.likelihood (=Bernoulli) is not"
         " the decoder's output." + LIKELIHOOD),
        (lambda: discrete(VectorQuantizer(12, 4, normalize=True)), "VQVAE to diffusers: model.quantizer"
         " (=VectorQuantizer) must be a VectorQuantizer with normalize: false and no projection around it:"
         " diffusers.VQModel has no other."),
        (lambda: discrete(Projected(VectorQuantizer(12, 2), 4)), "VQVAE to diffusers: model.quantizer (=Projected) must"
         " be a VectorQuantizer with normalize: false and no projection around it: diffusers.VQModel has no other."),
    ],
)  # fmt: skip
def test_models_that_diffusers_does_not_have(build: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        export_diffusers(build(), tmp_path / "x", 1.0, None, "")
    assert str(error.value) == f"export of {text}"
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_is_not_the_mirror(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        export_diffusers(gaussian(decoder={**NETWORK, "blocks": 1}), tmp_path / "x", 1.0, None, "")
    assert "its decoder must be the mirror of its encoder" in str(error.value)
    assert "missing: decoder.levels.0.blocks.2.norm1.weight, " in str(error.value)
    assert "Give both networks the same init_args." in str(error.value)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        export_diffusers(gaussian(), tmp_path, 1.0, None, "")
    assert str(error.value) == f"{tmp_path} exists already. Give another folder, or remove it."


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"_class_name": "AutoencoderTiny"}, "_class_name (='AutoencoderTiny') must be AutoencoderKL or VQModel"),
        ({"act_fn": "relu"}, "act_fn (='relu') must be silu"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention (=False) must be true"),
        ({"out_channels": 6}, "out_channels (=6) must be in_channels (=3)"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 3}, "must be down_block_types mirrored, ['UpDecoderBlock2D',"),
        ({"down_block_types": ["SkipDownBlock2D"]}, "down_block_types has SkipDownBlock2D, but must be of"),
        ({"norm_num_groups": 3}, "norm_groups (=3) must divide all numbers of channels"),
    ],
)  # fmt: skip
def test_autoencoders_that_are_not_of_these_networks(config: dict[str, Any], text: str, tmp_path: Path) -> None:
    export_diffusers(gaussian(), tmp_path / "kl", 1.0, None, "")
    with pytest.raises(ValueError) as error:
        read_autoencoder(altered(tmp_path / "kl", **config))
    assert text in str(error.value)
    assert "not an autoencoder of LDM networks" in str(error.value)


def test_weights_that_are_missing_unexpected_or_of_another_shape_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    export_diffusers(gaussian(), tmp_path / "kl", 1.0, None, "")
    file = tmp_path / "kl" / "diffusion_pytorch_model.safetensors"
    state: dict[str, Tensor] = load_file(file)
    state["encoder.more"] = state.pop("decoder.conv_in.bias")
    state["quant_conv.bias"] = torch.zeros(9)
    save_file(state, file)
    with pytest.raises(ValueError) as error:
        read_autoencoder(tmp_path / "kl")
    assert (
        "1 missing: decoder.conv_in.bias; 1 unexpected: encoder.more;"
        " 1 of another shape: quant_conv.bias (9,) for (8,)." in str(error.value)
    )


def test_a_model_of_other_sizes_is_told_which_fit(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    with pytest.raises(ValueError) as error:
        load_into(gaussian(encoder={**NETWORK, "width": 4}), tmp_path)
    assert f"{tmp_path}: does not fit into KLAutoencoder: " in str(error.value)
    assert "encoder.stem.weight (8, 3, 3, 3) for (4, 3, 3, 3), " in str(error.value)
    assert f"Set the init_args of both networks to {NETWORK}, take a latent of 4 channels" in str(error.value)
    with pytest.raises(ValueError, match="does not fit into VAE: its networks are MLP and MLP"):
        load_into(vector_vae(), tmp_path)
