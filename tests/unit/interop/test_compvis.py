"""Checkpoints of latent-diffusion and taming-transformers, made here with the names that those were published with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from interop_helpers import LATENT, SIZE, discrete, gaussian
from torch import Tensor

from lit_vae.interop import Architecture, load_into, read_autoencoder


def affine(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def resnet(name: str, a: int, b: int) -> dict[str, tuple[int, ...]]:
    shapes = affine(f"{name}.norm1", a) | affine(f"{name}.conv1", b, a, 3, 3)
    shapes |= affine(f"{name}.norm2", b) | affine(f"{name}.conv2", b, b, 3, 3)
    return shapes | (affine(f"{name}.nin_shortcut", b, a, 1, 1) if a != b else {})


def attention(name: str, c: int) -> dict[str, tuple[int, ...]]:
    shapes = affine(f"{name}.norm", c)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= affine(f"{name}.{part}", c, c, 1, 1)
    return shapes


def published(encoded: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes by ldm/modules/diffusionmodules/model.py, of ch 32, ch_mult (1, 2), attention at the second."""
    shapes = affine("encoder.conv_in", 32, 3, 3, 3) | affine("decoder.conv_in", 64, 4, 3, 3)
    for side in ("encoder", "decoder"):
        shapes |= resnet(f"{side}.mid.block_1", 64, 64) | resnet(f"{side}.mid.block_2", 64, 64)
        shapes |= attention(f"{side}.mid.attn_1", 64)
    shapes |= resnet("encoder.down.0.block.0", 32, 32) | affine("encoder.down.0.downsample.conv", 32, 32, 3, 3)
    shapes |= resnet("encoder.down.1.block.0", 32, 64) | attention("encoder.down.1.attn.0", 64)
    for block in (0, 1):
        shapes |= resnet(f"decoder.up.1.block.{block}", 64, 64) | attention(f"decoder.up.1.attn.{block}", 64)
        shapes |= resnet(f"decoder.up.0.block.{block}", 64 if block == 0 else 32, 32)
    shapes |= affine("decoder.up.1.upsample.conv", 64, 64, 3, 3)
    shapes |= affine("encoder.norm_out", 64) | affine("encoder.conv_out", encoded, 64, 3, 3)
    shapes |= affine("decoder.norm_out", 32) | affine("decoder.conv_out", 3, 32, 3, 3)
    return shapes | affine("quant_conv", encoded, encoded, 1, 1) | affine("post_quant_conv", 4, 4, 1, 1)


def checkpoint(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save(path: Path, state: dict[str, Any], prefix: str = "") -> Path:
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}, "global_step": 3}, path)
    return path


ARCHITECTURE = Architecture(3, 4, (32, 64), 1, (1,))


def test_a_gaussian_autoencoder(tmp_path: Path) -> None:
    state = checkpoint(published(8))
    imported = read_autoencoder(save(tmp_path / "a.ckpt", state))
    assert imported.architecture == ARCHITECTURE
    assert imported.state_dict.keys() == ARCHITECTURE.shapes().keys()
    # the decoder's levels count from the finest there, from the coarsest here
    for ours, name in {
        "decoder.levels.0.blocks.1.conv1.weight": "decoder.up.1.block.1.conv1.weight",
        "decoder.levels.0.resample.conv.bias": "decoder.up.1.upsample.conv.bias",
        "encoder.levels.0.resample.conv.bias": "encoder.down.0.downsample.conv.bias",
        "encoder.middle.block2.norm1.bias": "encoder.mid.block_2.norm1.bias",
        "decoder.levels.1.blocks.0.shortcut.weight": "decoder.up.0.block.0.nin_shortcut.weight",
    }.items():
        assert torch.equal(imported.state_dict[ours], state[name])
    out = imported.state_dict["encoder.levels.1.attention.0.out.weight"]
    assert torch.equal(out, state["encoder.down.1.attn.0.proj_out.weight"][:, :, 0, 0])
    assert {value.sum().item() for value in imported.state_dict.values()} == {v.sum().item() for v in state.values()}


def test_diffusers_reads_the_same_of_it(tmp_path: Path) -> None:
    """Its own conversion, which knows of attention in the middle only."""
    pytest.importorskip("diffusers")
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    from lit_vae.interop.names import to_diffusers

    shapes = {name: shape for name, shape in published(8).items() if ".attn." not in name}
    state = checkpoint(shapes)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    expected = convert_ldm_vae_checkpoint(dict(state), blocks)
    imported = read_autoencoder(save(tmp_path / "a.ckpt", state)).state_dict
    assert {to_diffusers(name) for name in imported} == expected.keys()
    for name, value in imported.items():
        assert torch.equal(value, expected[to_diffusers(name)]), name


def test_the_first_stage_of_a_whole_model_and_what_training_leaves(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = checkpoint(published(8))
    expected = read_autoencoder(save(tmp_path / "a.ckpt", state)).state_dict
    rest = {"model.diffusion_model.out.2.weight": torch.ones(1), "betas": torch.ones(3)}
    of_training = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.ones(2, 2)}
    whole = {f"first_stage_model.{name}": value for name, value in state.items()}
    save_file(whole | rest, tmp_path / "b.safetensors")
    for path in (tmp_path / "b.safetensors", save(tmp_path / "c.ckpt", state | of_training)):
        found = read_autoencoder(path).state_dict
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_vqgan(tmp_path: Path) -> None:
    shapes = published(4) | {"quantize.embedding.weight": (12, 4)}
    imported = read_autoencoder(save(tmp_path / "vq.ckpt", checkpoint(shapes)))
    assert imported.architecture == Architecture(3, 4, (32, 64), 1, (1,), num_embeddings=12)
    assert imported.state_dict["quantizers.0.codebook.weight"].shape == (12, 4)


def test_a_gaussian_one_does_not_fit_into_codes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", checkpoint(published(8)))
    for model in (discrete(), gaussian()):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError) as error:
            load_into(model, path)
        assert f"does not fit into {type(model).__name__}: " in str(error.value)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert ARCHITECTURE.latent_shape(SIZE, SIZE) == (4, 8, 8) != LATENT


# ---- what is not read -----------------------------------------------------------------------------------------------


class Unsafe:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_a_file_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.ckpt", {"x": Unsafe()})
    with pytest.raises(ValueError) as error:
        read_autoencoder(path)
    assert f"{path}: cannot be read without running its code (" in str(error.value)
    assert "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)." in str(error.value)
    assert capsys.readouterr().out == ""


def test_files_that_are_none(tmp_path: Path) -> None:
    texts = {
        "none.ckpt": "there is no such file or folder. Give a diffusers folder or a CompVis checkpoint.",
        "bad.safetensors": "cannot be read (",
        "other.ckpt": "not an autoencoder of CompVis: it has no encoder.down.0.block.0.conv1.weight, or none of"
        " encoder.conv_in.weight and post_quant_conv.weight; it has model.x.",
        "list.ckpt": "not an autoencoder of CompVis: ",
        "folder": "there is no config.json. Give the folder of the autoencoder itself;",
    }
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "folder").mkdir()
    save(tmp_path / "other.ckpt", {"model.x": torch.zeros(1)})
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name, text in texts.items():
        with pytest.raises(ValueError) as error:
            read_autoencoder(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: {text}")
    (tmp_path / "folder" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ValueError, match=r"there is no diffusion_pytorch_model\.safetensors\. Download the weights"):
        read_autoencoder(tmp_path / "folder")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", " is not JSON ("),
        ('{"in_channels": 3', " is not JSON ("),
        ("[" * 100_000, " is not JSON ("),
        ("[1]", ": the file (=[1]): Input should be a valid dictionary"),
        ('{"in_channels": "3"}', ": in_channels (='3'): Input should be a valid integer"),
        ('{"latent_channels": null}', ": latent_channels (=None): Input should be a valid integer"),
        ('{"down_block_types": [1]}', ": down_block_types.0 (=1): Input should be a valid string"),
        ('{"block_out_channels": []}', ": block_out_channels (=[]): List should have at least 1 item"),
        ('{"layers_per_block": -1}', ": layers_per_block (=-1): Input should be greater than 0"),
        ('{"scaling_factor": NaN}', ": scaling_factor (=nan): Input should be a finite number"),
    ],
)
def test_a_config_of_another_form_is_named_with_its_key(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError) as error:
        read_autoencoder(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}{expected}")


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    state = checkpoint(published(8))
    del state["encoder.mid.attn_1.k.weight"]
    state["quantize.embed.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError) as error:
        read_autoencoder(save(tmp_path / "a.ckpt", state))
    assert "1 missing: encoder.mid.attn_1.k.weight; 1 unexpected: quantize.embed.weight." in str(error.value)
