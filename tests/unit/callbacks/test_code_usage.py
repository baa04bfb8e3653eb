"""The use of codes over a whole set, as it is logged and drawn."""

import pytest
import torch
from PIL import Image

from callbacks import CodeUsage
from callbacks.code_usage import usage_figure
from lit_vae.codes import code_statistics
from lit_vae.models import AE
from lit_vae.models.abilities import HasCodes

GRIDS = ((2, 2), (4, 4))


def coarse_and_fine(x, num_embeddings):
    """Codes of images: the mean of each patch, in levels."""
    means = [torch.nn.functional.adaptive_avg_pool2d(x, grid).mean(1) for grid in GRIDS]
    pairs = list(zip(means, num_embeddings, strict=False))
    return tuple(((mean + 1) / 2 * (k - 2)).round().long() for mean, k in pairs)


class Coded(AE, HasCodes):
    def encode_codes(self, x, y):
        return coarse_and_fine(x, self.sizes)


@pytest.fixture
def new_coded(new_model):
    """A model with codes, ``(K of the coarsest level, ...)``."""

    def make(*num_embeddings):
        model = new_model("AE")
        model.__class__ = Coded
        model.num_embeddings = model.sizes = num_embeddings
        return model

    return make


def expected(data, split, *num_embeddings):
    x, _ = data.example_batch(20, split)
    levels = zip(coarse_and_fine(x, num_embeddings), num_embeddings, strict=True)
    return [code_statistics(torch.bincount(codes.flatten(), minlength=k)) for codes, k in levels]


@pytest.mark.parametrize("split", ["val", "test"])
def test_several_levels_over_the_whole_set(split, new_coded, new_trainer, data, tmp_path):
    trainer = new_trainer(CodeUsage())
    evaluate = trainer.validate if split == "val" else trainer.test
    for _ in range(2):  # the counts are those of one pass
        evaluate(new_coded(8, 40), datamodule=data, verbose=False)
    for i, level in enumerate(expected(data, split, 8, 40)):
        got = trainer.callback_metrics
        assert got[f"{split}/perplexity_{i}"].item() == pytest.approx(level.perplexity.item(), rel=1e-6)
        assert got[f"{split}/code_usage_{i}"].item() == pytest.approx(level.usage.item(), rel=1e-6)
    panel = "code_use" if split == "test" else "code_use_val"
    with Image.open(tmp_path / "media" / panel / "step_0.png") as image:
        caption = f"Share of each code among the {20 * (4 + 16)} codes of the {split} images, most used first"
        assert image.text["Description"] == caption


def test_one_level_at_every_validation(new_coded, new_trainer, data, tmp_path):
    trainer = new_trainer(CodeUsage(), max_epochs=2)
    trainer.fit(new_coded(8), datamodule=data)
    (level,) = expected(data, "val", 8)
    assert trainer.callback_metrics["val/perplexity"].item() == pytest.approx(level.perplexity.item(), rel=1e-6)
    assert trainer.callback_metrics["val/code_usage"].item() == pytest.approx(level.usage.item(), rel=1e-6)
    pictures = sorted(path.name for path in (tmp_path / "media" / "code_use_val").iterdir())
    assert pictures == ["step_3.png", "step_6.png"]


def test_codes_out_of_range_stop_the_measurement(new_coded, new_trainer, data):
    model = new_coded(8)
    model.num_embeddings = (3,)
    with pytest.raises(ValueError, match=r"codes \(=\d to \d\) must be between 0 and 2"):
        new_trainer(CodeUsage()).test(model, datamodule=data, verbose=False)


def test_a_model_without_codes_is_refused(new_model, new_trainer, data):
    with pytest.raises(ValueError) as error:
        new_trainer(CodeUsage()).test(new_model("VAE"), datamodule=data, verbose=False)
    assert str(error.value) == (
        "CodeUsage: VAE has no codes. Remove callbacks.CodeUsage from trainer.callbacks, or train a model with a"
        " codebook, such as lit_vae.models.VQVAE."
    )


def test_the_figure_shows_the_sorted_shares_and_says_how_they_are():
    counts = [torch.tensor([0, 3, 0, 1]), torch.tensor([2, 2])]
    first, second = usage_figure([code_statistics(count) for count in counts]).axes
    for axes, shares, k in ((first, [0.75, 0.25], 4), (second, [0.5, 0.5], 2)):
        (bars,) = axes.patches
        values, edges, bottom = bars.get_data()
        assert values.tolist() == shares
        assert edges.tolist() == [0.5, 1.5, 2.5]
        assert axes.get_xlim() == (0.5, k + 0.5)  # room for the codes that are not used
        assert axes.get_yscale() == "log"
        (line,) = axes.lines
        assert set(line.get_ydata()) == {1 / k}
        low, high = axes.get_ylim()
        assert 0 < low == bottom < min(shares[-1], 1 / k)
        assert high > shares[0]
    assert first.get_title() == "level 0\nperplexity 1.8 of 4 codes, 50.0 % used"
    assert second.get_title() == "level 1\nperplexity 2.0 of 2 codes, 100.0 % used"
    assert first.get_ylabel() == "share of all codes"


def test_one_level_needs_no_name_and_one_code_no_range():
    (axes,) = usage_figure([code_statistics(torch.tensor([5]))]).axes
    assert axes.get_title() == "perplexity 1.0 of 1 codes, 100.0 % used"
    low, high = axes.get_ylim()
    assert low < 1 < high
