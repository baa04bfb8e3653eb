"""Eight-bit levels of images, real and generated."""

import torch

from lit_vae.images import dequantize, from_uint8, levels, to_uint8

ALL = torch.arange(256, dtype=torch.uint8)


def test_levels_of_real_images_are_what_they_were_made_of():
    assert torch.equal(levels(from_uint8(ALL), "uint8"), ALL)
    signs = torch.tensor([-1.0, 1.0])
    assert levels(signs, "binary").tolist() == [0, 255]
    for noise in (0.0, 0.5, 1.0 - 2.0**-16):  # the most that 16 bits hold
        assert torch.equal(levels(dequantize(ALL.float(), torch.tensor(noise)), "dequantized"), ALL)


def test_a_level_has_the_mean_of_its_dequantised_values():
    """A decoder that predicts the mean of what it sees predicts the level."""
    means = (ALL.float() + 0.5) / 128.0 - 1.0
    assert torch.equal(levels(means, "dequantized"), ALL)


def test_values_out_of_range_are_clamped_and_others_rounded():
    x = torch.tensor([-5.0, -1.01, 1.01, 7.0])
    for values in ("uint8", "dequantized"):
        assert levels(x, values).tolist() == [0, 0, 255, 255]
    assert to_uint8(torch.tensor([100.4, 100.6]) / 127.5 - 1.0).tolist() == [100, 101]
