"""Hierarchies that cannot be meant: one error each, before training."""

from functools import partial

import pytest
from hierarchy_helpers import chain, new_model, top_down, vector_and_map

from lit_vae.hierarchies import Absolute, LadderMerge, ResidualNormal
from lit_vae.images import ImageSpec
from lit_vae.networks import ConvDecoder, ConvEncoder, GatedPixelCNN, VDVAEBlock
from lit_vae.objectives import ELBO, DReG, FreeBitsPerLevel

IMAGE = (1, 8, 8)
SPEC = ImageSpec(*IMAGE, 4, "dequantized")


def built(latent_shapes, image=IMAGE, widths=(4,), **given):
    return new_model(image, latent_shapes, top_down(Absolute(), VDVAEBlock, widths), **given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"latent_shapes": [[2, 3, 3], [2, 4, 4]]},
            "TopDown: latent_shapes.0 is on a grid of 3x3, which does not divide 4x4, the grid of latent_shapes.1.",
        ),
        (
            {"latent_shapes": [[2, 4, 4], [2, 2, 2]]},
            "TopDown: latent_shapes.0 is on a grid of 4x4, which does not divide 2x2, the grid of latent_shapes.1.",
        ),
        (
            {"latent_shapes": [[2, 3, 3]]},
            "TopDown: latent_shapes.0 is on a grid of 3x3, which does not divide 8x8, the grid of the image.",
        ),
        (
            {"latent_shapes": [[2, 4, 8]]},
            "TopDown: the finest grid (=4x8) must have the proportions of the image (=8x8).",
        ),
        ({"latent_shapes": [[2]]}, "TopDown: latent_shapes.0 (=[2]) must be a map [channels, height, width];"),
        (
            {"latent_shapes": [[2, 2, 2], [2, 4, 4]]},
            "TopDown: widths (=[4]) must be one for each grid, from the coarsest: the latents are on 2x2, 4x4.",
        ),
        ({"latent_shapes": []}, "HierarchicalVAE: latent_shapes (=[]) must be one or more shapes, from the top, each"),
        ({"latent_shapes": [[2, 2]]}, "HierarchicalVAE: latent_shapes (=[[2, 2]]) must be one or more shapes, from"),
        ({"latent_shapes": [[2, 4, 4], []], "widths": [4, 4]}, "HierarchicalVAE: latent_shapes (=[[2, 4, 4], []])"),
        ({"latent_shapes": [[0, 4, 4]]}, "HierarchicalVAE: latent_shapes (=0) must be at least 1."),
    ],
)  # fmt: skip
def test_latents_that_do_not_fit(arguments, said):
    with pytest.raises(ValueError) as error:
        built(**arguments)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("posterior", [LadderMerge(), ResidualNormal()])
def test_a_markovian_wiring_with_a_top_down_posterior(posterior):
    with pytest.raises(ValueError) as error:
        new_model(IMAGE, [[3], [4]], chain(posterior=posterior))
    assert str(error.value) == (
        f"MarkovianBottomUp: posterior (={type(posterior).__name__}) depends on p(z_l | z_(l+1)), but this wiring draws"
        " z_l before z_(l+1). Take lit_vae.hierarchies.Absolute, or the wiring lit_vae.hierarchies.TopDown."
    )


@pytest.mark.parametrize("latent_shapes", [[[3]], [[3], [4]], [[3, 1, 1], [2, 2, 2]], [[3], [2, 2, 2], [2, 4, 4]]])
def test_other_latents_than_a_vector_and_a_map(latent_shapes):
    with pytest.raises(ValueError) as error:
        new_model(IMAGE, latent_shapes, vector_and_map())
    assert str(error.value) == (
        f"VectorAndMap: latent_shapes (={latent_shapes}) must be a vector and a map, [[d], [channels, height, width]]."
        " Set model.init_args.latent_shapes."
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"encoder": partial(ConvEncoder, multipliers=[1, 2])},
            "encoder, from the image to the map 2x2: ConvEncoder: multipliers (=[1, 2]) bring 8x8 (model.image_shape)"
            " to 4x4, but the latent map is 2x2.",
        ),
        (
            {"decoder": partial(ConvDecoder, multipliers=[1, 1, 1, 1, 1])},
            "decoder, from the map 2x2 to the image: ConvDecoder: multipliers (=[1, 1, 1, 1, 1]) halve an image 4"
            " times, but 8x8 (model.image_shape) is not divisible by 16.",
        ),
        (
            {"top_decoder": partial(ConvDecoder, multipliers=[1, 1, 1])},
            "top_decoder, from the vector to the map 2x2, which it takes for an image: ConvDecoder: multipliers"
            " (=[1, 1, 1]) halve an image 2 times, but 2x2 (model.image_shape) is not divisible by 4.",
        ),
        (
            {"network": partial(GatedPixelCNN, kernel_size=4)},
            "network, over the map 2x2: GatedPixelCNN: kernel_size (=4) must be odd. Set kernel_size in the init_args"
            " of the network.",
        ),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_the_map(given, said):
    with pytest.raises(ValueError) as error:
        new_model(IMAGE, [[3], [2, 2, 2]], vector_and_map(**given))
    assert str(error.value).startswith(f"VectorAndMap: model.init_args.hierarchy.init_args.{said}")


def test_free_bits_for_levels_that_are_not_there():
    objective = ELBO(free_bits=FreeBitsPerLevel([1.0, 0.5, 0.5]))
    (problem,) = built([[2, 4, 4], [2, 4, 4]], objective=objective).problems(SPEC)
    assert problem == (
        "FreeBitsPerLevel: nats (=[1.0, 0.5, 0.5]) must be one number, or one for each of the 2 levels, from the top."
        " Set model.init_args.objective.init_args.free_bits.init_args.nats."
    )
    assert built([[2, 4, 4]] * 3, objective=objective).problems(SPEC) == []


def test_an_objective_for_one_level():
    (problem,) = built([[2, 4, 4]] * 2, objective=DReG()).problems(SPEC)
    assert problem.startswith("DReG: it needs a model with one level of latents, but this one has 2.")


def test_labels_that_do_not_fit():
    assert built([[2, 4, 4]], num_classes=4).problems(SPEC) == []
    assert built([[2, 4, 4]]).problems(SPEC) == []
    (problem,) = built([[2, 4, 4]], num_classes=3).problems(SPEC)
    assert problem.startswith("HierarchicalVAE: model.num_classes (=3) must be the number of the data's labels (=4).")


def test_one_level_is_a_vae():
    model = built([[2, 4, 4]])
    assert model.term_names == ("loss", "elbo", "rate", "distortion")
    assert model.num_levels == 1
