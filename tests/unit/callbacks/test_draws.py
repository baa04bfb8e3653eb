"""Draws of autoregressive models: of pixels, and of codes that stage 1 decodes."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks import Draws
from callbacks.drawing import arrange, sheet
from lit_vae.likelihoods import Bernoulli
from lit_vae.models import CodePrior, PixelCNN
from lit_vae.networks import GatedPixelCNN
from lit_vae.sampling import CodeSampling

CLASSES = 3
SMALL = partial(GatedPixelCNN, width=8, layers=2, kernel_size=3, head_width=8)
ADAM = partial(torch.optim.Adam, lr=1e-2)


class Decoder(torch.nn.Module):
    """In place of stage 1: an image of one level for each code, twice as large as the grid."""

    def decode_codes(self, codes: tuple[Tensor, ...], y: Tensor) -> Any:
        class Delta:
            mean = torch.nn.functional.interpolate(codes[0].unsqueeze(1) / 2.0 - 1.0, scale_factor=2)

        return Delta


def pixelcnn(num_classes: int = 0) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNN([1, 4, 4], SMALL, Bernoulli(), ADAM, num_classes=num_classes)


def prior(num_classes: int = 0) -> CodePrior:
    torch.manual_seed(0)
    return CodePrior([[2, 2]], [5], [SMALL], ADAM, embedding_dim=4, num_classes=num_classes)


def of_prior(panel: Draws) -> Draws:
    panel.decoder = Decoder()  # type: ignore[assignment]
    return panel


@pytest.mark.parametrize("family", ["PixelCNN", "CodePrior"])
def test_the_same_pixels_whatever_was_drawn_before_and_others_for_another_seed(family: str) -> None:
    model: Any = pixelcnn() if family == "PixelCNN" else prior()
    panels = [Draws(12, seed=seed) for seed in (0, 0, 1)]
    panels = panels if family == "PixelCNN" else [of_prior(panel) for panel in panels]
    first = np.asarray(panels[0].draw(model))
    torch.rand(5)
    np.testing.assert_array_equal(first, np.asarray(panels[1].draw(model)))
    assert not np.array_equal(first, np.asarray(panels[2].draw(model)))


@pytest.mark.parametrize(("num_images", "columns"), [(6, 2), (7, 3)])
def test_a_row_for_each_class(num_images: int, columns: int) -> None:
    model = pixelcnn(CLASSES)
    asked = []
    sample = model.sample
    model.sample = lambda n, y, *args: asked.append(y) or sample(n, y, *args)  # type: ignore[method-assign,func-returns-value]
    picture = Draws(num_images, seed=4).draw(model)
    y = torch.arange(CLASSES).repeat_interleave(columns)
    assert torch.equal(asked[0], y)
    images = sample(len(y), y, 1.0, torch.Generator().manual_seed(4)).unflatten(0, (CLASSES, columns))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(sheet(images, row_labels=["0", "1", "2"])))


def test_codes_are_drawn_as_asked_and_decoded() -> None:
    model, seen = prior(), []
    panel = of_prior(Draws(6, sampling=CodeSampling(temperature=0.7, top_k=3), seed=3))
    panel.progress = lambda done, of: seen.append((done, of))
    picture = panel.draw(model)
    y = torch.full((6,), -1)
    codes = model.sample_codes(6, y, CodeSampling(0.7, 3), torch.Generator().manual_seed(3))
    expected = sheet(arrange(Decoder().decode_codes(codes, y).mean))
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert seen == [(done, 4) for done in (1, 2, 3, 4)]
    assert panel.caption == "Draws from the model, temperature 0.7, the 3 most probable codes"


def test_drawing_does_not_touch_training(new_trainer: Any, data: Any, tmp_path: Any) -> None:
    """With dropout, which draws from the random state that a picture must leave alone."""
    weights = []
    for panels in ([], [Draws(4)]):
        model = PixelCNN([1, 8, 8], partial(SMALL, dropout=0.5), Bernoulli(), ADAM)
        with torch.no_grad():
            for p, like in zip(model.parameters(), pixelcnn().parameters(), strict=True):
                p.copy_(like)
        torch.manual_seed(1)
        images = type(data)(**{**data.hparams, "values": "binary"})
        new_trainer(*panels, default_root_dir=tmp_path).fit(model, datamodule=images)
        assert model.training
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    assert len(list((tmp_path / "media" / "draws").iterdir())) == 2


def test_a_model_that_is_not_autoregressive_is_refused(new_model: Any, new_trainer: Any, data: Any) -> None:
    with pytest.raises(ValueError) as error:
        new_trainer(Draws()).fit(new_model("VAE"), datamodule=data)
    assert str(error.value) == "Draws: VAE has latents of its own. Take callbacks.Samples in trainer.callbacks."


def test_draws_of_pixels_are_exact() -> None:
    message = r"Draws: sampling \(=CodeSampling\(.*top_k=3.*\) is for codes, but PixelCNN draws pixels exactly\. Remove"
    with pytest.raises(ValueError, match=message):
        Draws(sampling=CodeSampling(top_k=3)).check_model(pixelcnn())
    Draws(sampling=CodeSampling(top_k=3)).check_model(prior())


def test_an_empty_sheet_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Draws: num_images \(=0\) must be at least 1\."):
        Draws(0)
