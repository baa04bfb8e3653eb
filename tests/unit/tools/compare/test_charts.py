"""Charts: which there are, of which runs, and as markup that belongs to the page around it."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare_helpers import entry, number
from scipy import stats

from lit_vae.intervals import half_width
from lit_vae.tools.compare.charts import Chart, curves, draw_charts, scatters, spectra, style, svg
from lit_vae.tools.compare.differences import compare_numbers
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.numbers import Number, rank_correlation
from lit_vae.tools.compare.pictures import Pictures, group_by_images


def runs() -> list[Entry]:
    """Three that compare, and one on other images."""
    data = ["Digits", "Digits", "Digits", "MNIST"]
    values = [(5.0, 1.0, 20.0, 0.5), (9.0, -4.0, 25.0, 0.3), (None, 2.0, 22.0, 0.4), (7.0, 7.0, 7.0, 7.0)]
    names = ("rate", "distortion", "psnr", "lpips_featurenet")
    return [
        entry(f"run{i}", {n: number(v, data=of) for n, v in zip(names, row, strict=True) if v is not None})
        for i, (row, of) in enumerate(zip(values, data, strict=True))
    ]


def test_scatters_are_of_runs_that_compare_in_both_numbers() -> None:
    charts = {chart.title: chart for chart in scatters(compare_numbers(runs(), [None] * 4))}
    assert charts["Rate and distortion"].points == {0: [(5.0, 1.0)], 1: [(9.0, -4.0)]}
    assert charts["Rate and reconstruction"].points == {0: [(5.0, 20.0)], 1: [(9.0, 25.0)]}
    assert charts["Distortion and perception"].points == {0: [(20.0, 0.5)], 1: [(25.0, 0.3)], 2: [(22.0, 0.4)]}
    assert charts["Distortion and perception"].x == "psnr (dB), higher is better"
    assert charts["Distortion and perception"].y == "lpips_featurenet, lower is better"
    assert scatters(compare_numbers(runs()[:1], [None])) == []
    assert [chart.title for chart in scatters(compare_numbers(runs()[1:3], [None] * 2))] == [
        "Distortion and perception"
    ]


def test_latents_and_reconstructions_are_shown_over_what_is_generated() -> None:
    """Of three runs or more, and not if a number is the same for all, as the noise of autoencoders."""
    rows = [(0.5, 0.1, 0.0, 3.0, 30.0), (0.4, 0.2, 0.0, 2.0, 20.0), (0.3, 0.4, 0.0, 1.0, 10.0)]
    names = ("latent_high_frequency", "latent_gaussian_nats", "latent_noise", "rfd_a", "fd_a")
    entries = [entry(f"run{i}", dict(zip(names, map(number, row), strict=True))) for i, row in enumerate(rows)]

    def shown(n: int) -> dict[tuple[str, str], str]:
        charts = scatters(compare_numbers(entries[:n], [None] * n))
        return {(chart.x, chart.y): chart.title for chart in charts if "generation" in chart.title}

    of_rfd = {("rfd_a, lower is better", "fd_a, lower is better"): "Reconstruction and generation"}
    titles = {"latent_high_frequency": "Latent detail and generation"}
    titles |= {"latent_gaussian_nats": "Latent covariance and generation"}
    of_latents = {(x, "fd_a, lower is better"): title for x, title in titles.items()}
    assert shown(3) == of_rfd | of_latents
    assert shown(2) == of_rfd


def test_the_order_of_runs_has_an_interval_over_images() -> None:
    """In half of the groups of images the first two runs change places in one of the two numbers."""
    ranks = np.arange(5.0)
    swapped = np.array([1.0, 0.0, 2.0, 3.0, 4.0])

    def having(values: list[np.ndarray]) -> list[Number]:
        return [Number(float(ranks[i]), "test", replicates=tuple(float(v[i]) for v in values)) for i in range(5)]

    xs, ys = having([ranks] * 20), having([ranks] * 10 + [swapped] * 10)
    order = rank_correlation(xs, ys)
    assert order is not None
    low = stats.spearmanr(ranks, swapped).statistic
    assert order == (pytest.approx(1.0), pytest.approx(half_width([1.0] * 10 + [low] * 10)))
    assert rank_correlation(xs[:4], ys[:4]) is None
    assert rank_correlation(xs, [*ys[:4], Number(ys[4].value, "test")]) == (order.value, None)
    assert rank_correlation([*xs, xs[0]], [*ys, ys[0]]) == order
    assert rank_correlation(xs, [ys[0]] * 5) is None


def test_curves_are_of_numbers_of_two_runs_on_the_same_images_and_of_each_training_once() -> None:
    first, second, third, _ = runs()
    first = replace(first, curves={"val/psnr": [(1, 2.0), (2, 3.0)], "train/loss": [(1, 1.0)], "val/own": [(1, 1.0)]})
    second = replace(second, curves={"val/psnr": [(1, 4.0)], "train/loss": [(1, 1.0)]})
    mixture = replace(third, records=replace(third.records, directory=first.records.directory), curves=first.curves)
    elsewhere = replace(runs()[3], curves={"val/psnr": [(1, 9.0)], "val/own": [(1, 1.0)]})  # on MNIST
    (chart,) = curves([first, second, mixture, elsewhere], [None] * 4)
    assert chart.title == "val/psnr"
    assert chart.points == {0: [(1.0, 2.0), (2.0, 3.0)], 1: [(1.0, 4.0)]}
    assert curves([first, mixture, elsewhere], [None] * 3) == []
    assert curves([first, second], [0, 1]) == []  # seen to be other images


def test_spectra_tell_blurry_from_noisy_and_invented() -> None:
    """Made by frequency: half of the detail, none above a quarter cycle, and that of other images."""
    x, other = (torch.randn(1000, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    transformed = torch.fft.fft2(x.double())
    rows = torch.fft.fftfreq(16).abs()
    low = torch.fft.ifft2(transformed * (rows[:, None].square() + rows.square() <= 0.25**2)).real
    pictures = [Pictures(x, made) for made in (0.5 * x, low, other)]
    detail, error = spectra(group_by_images(pictures), pictures)
    finest = {chart.title: [points[-1][1] for points in chart.points.values()] for chart in (detail, error)}
    assert finest["Detail"] == pytest.approx([0.25, 0.0, 1.0], abs=0.06)
    assert finest["Error by detail"] == pytest.approx([0.25, 1.0, 2.0], abs=0.1)
    coarsest = [points[0][1] for points in error.points.values()]
    assert coarsest == pytest.approx([0.25, 0.0, 2.0], abs=0.2)  # few frequencies are so low
    assert spectra([], []) == []
    blank = [Pictures(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8))]
    assert spectra(group_by_images(blank), blank) == []


def chart() -> Chart:
    return Chart("A & B", "rate (nats)", "<psnr> of $x_1$ and $y$", {0: [(1.0, 2.0)], 2: [(2.0, 1.0), (3.0, 4.0)]})


def test_svg_belongs_to_the_page() -> None:
    text = svg(chart())
    root = ET.fromstring(text)
    shown = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "rate (nats)" in shown  # text, and no outlines
    assert "<psnr> of $x_1$ and $y$" in shown  # and no formula
    assert "#000000" not in text
    assert "currentColor" in text
    assert "DejaVu" not in text
    assert "metadata" not in text
    assert style(0).colour in text
    assert style(2).colour in text
    assert style(1).colour not in text
    used = set(re.findall(r"#(\w+)\)?\"", text))
    assert set(re.findall(r' id="([^"]*)"', text)) <= used
    assert root.get("width") is None
    assert not re.search(r"fill: (#fff|white)", text)  # the ground is the page's


def test_svg_is_the_same_each_time_and_shares_no_name_with_another() -> None:
    other = Chart("B", "x", "y", {0: [(1.0, 2.0)]})
    assert svg(chart()) == svg(chart())
    ids = [set(re.findall(r' id="([^"]*)"', svg(c))) for c in (chart(), other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_chart_in_words_says_where_each_run_comes_to() -> None:
    assert chart().words(runs()) == ("A & B. <psnr> of $x_1$ and $y$ over rate (nats): run0 1, 2; run2 3, 4.")


@pytest.mark.parametrize("label", ["plain", "_hidden", "$ and a_{$", "a_b"])
def test_the_picture_has_every_run_in_its_legend_whatever_its_name(tmp_path: Path, label: str) -> None:
    named = [entry("first"), entry("second"), entry(label)]
    with_it, without = (
        np.asarray(draw_charts([c], named)) for c in (chart(), replace(chart(), points={0: [(1.0, 2.0)]}))
    )
    assert with_it.shape == without.shape
    rows = slice(-int(0.25 * 150), None)  # the legend, at the bottom
    assert (with_it[rows] != 255).sum() > (without[rows] != 255).sum()


def test_the_picture_has_every_chart_and_no_axes_beside_them() -> None:
    charts = [replace(chart(), points={i: [(1.0, 1.0), (2.0, 2.0)]}) for i in range(4)]
    pixels = np.asarray(draw_charts(charts, [entry(str(i)) for i in range(4)]))
    height, width = int(2.9 * 150), pixels.shape[1] // 3
    for i in range(6):
        place = pixels[i // 3 * height : (i // 3 + 1) * height, i % 3 * width : (i % 3 + 1) * width]
        drawn = (place == tuple(bytes.fromhex(style(i).colour[1:]))).all(-1).any()
        assert drawn == (i < 4)
        if i >= 4:
            assert (place[: height - 60] == 255).all()


def test_no_two_of_the_first_runs_look_alike() -> None:
    assert len({(style(i).colour, style(i).marker) for i in range(42)}) == 42
