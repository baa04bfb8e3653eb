"""The page of a comparison that was made by hand: what is on it, escaped, and the same each time."""

import base64
import csv
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from compare_helpers import entry, number
from PIL import Image

from lit_vae.images import to_uint8
from lit_vae.intervals import Estimate
from lit_vae.tools.compare import sheets
from lit_vae.tools.compare.charts import curves, scatters, spectra
from lit_vae.tools.compare.differences import compare_numbers
from lit_vae.tools.compare.numbers import RankCorrelation
from lit_vae.tools.compare.page import page
from lit_vae.tools.compare.pictures import NUM_SAMPLES, Pictures, group_by_images, groups_of
from lit_vae.tools.compare.seeds import OverSeeds
from lit_vae.tools.compare.verb import Comparison, Request, write

EVIL = '<script>alert("x")</script>&\''


class Elements(HTMLParser):
    """All elements with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and class_ in [*(a.get("class") or "").split(), ""]]


def made(labels: tuple[str, ...] = ("mse", "gan", "other")) -> Comparison:
    """Three runs: two on the same images, and one on others, without reconstructions of its own."""
    generator = torch.Generator().manual_seed(0)
    x, x_hat, elsewhere = (2.0 * torch.rand(2, 1, 8, 8, generator=generator) - 1.0 for _ in range(3))
    pictures = [
        Pictures(x, x_hat, x.repeat(NUM_SAMPLES // 2, 1, 1, 1), "decoder means"),
        Pictures(x, x_hat.flip(-1), no_samples="it draws none"),
        Pictures(elsewhere, elsewhere.flip(-1), x.repeat(NUM_SAMPLES // 2, 1, 1, 1), "draws"),
    ]
    data = ["Digits", "Digits", "MNIST"]
    entries = [
        replace(
            entry(label, {"psnr": number(20.0 + i, data=of), "lpips_x": number(0.5 - i / 9, data=of)},
                  config={"lr": i, "same": 1}, run={"status": "failed", "step": 3, "error": f"E{EVIL}"}),
            curves={"val/psnr": [(1, 1.0 + i), (2, 3.0)]},
        )
        for i, (label, of) in enumerate(zip(labels, data, strict=True))
    ]  # fmt: skip
    groups = group_by_images(pictures)
    numbers = compare_numbers(entries, groups_of(groups, 3))
    request = Request(labels, "test", 2, "best", None, 0, None)
    configs = {"lr": ["0", "1", EVIL]}
    return Comparison(
        "a <b>comparison</b>",
        request,
        entries,
        pictures,
        groups,
        numbers,
        scatters(numbers),
        spectra(groups, pictures),
        curves(entries, [None] * 3),
        configs,
        [],
    )


def test_a_chart_says_how_the_runs_are_ordered() -> None:
    comparison = made()
    assert "Spearman" not in page(comparison)
    ordered = replace(comparison.scatters[0], order=RankCorrelation(-0.9, 0.05))
    assert "Spearman \u22120.900 ±0.050 over 2 runs" in page(replace(comparison, scatters=[ordered]))
    unknown = replace(ordered, order=RankCorrelation(0.3, None))
    said = "Spearman 0.3000 over 2 runs, its error over images is not known"
    assert said in page(replace(comparison, scatters=[unknown]))
    certain = replace(ordered, order=RankCorrelation(0.3, 0.0))  # no interval of width 0: other images may differ
    said = "Spearman 0.3000 over 2 runs, the same without any twentieth of the images"
    assert said in page(replace(comparison, scatters=[certain]))


def test_means_over_seeds_are_on_the_page_and_in_a_table(tmp_path: Path) -> None:
    rows = [
        OverSeeds("mse", ("mse_seed1",), {"psnr": Estimate(22.0, 0.5)}, {}),
        OverSeeds(EVIL, ("gan_seed1",), {"psnr": Estimate(21.0, 0.25)}, {"psnr": Estimate(-1.0, 0.125)}),
    ]
    write(replace(made(), over_seeds=rows), tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert text.count('alert("x")') == 0
    for shown in ("Over seeds", "22.00", "±0.50", "21.00", "±0.25", "\u22121.00", "±0.12"):
        assert shown in text
    with (tmp_path / "seeds.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[1] == {
        "run": EVIL, "trainings": "2", "metric": "psnr", "mean": "21.0", "half_width_95": "0.25",
        "against_first": "-1.0", "against_first_half_width_95": "0.125",
    }  # fmt: skip
    write(made(), tmp_path / "without")
    assert not (tmp_path / "without" / "seeds.csv").exists()
    assert "Over seeds" not in (tmp_path / "without" / "index.html").read_text()


def decoded(uri: str | None) -> np.ndarray:
    assert uri is not None
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_whatever_runs_are_called_is_text() -> None:
    text = page(made((EVIL, "<img src=x onerror=alert(1)>", "c")))
    elements = Elements(text)
    assert len(elements.all("script")) == 1
    assert "onerror" not in {name for _, attributes in elements.found for name in attributes}
    assert EVIL in elements.text
    assert text.count('alert("x")') == 0
    assert not elements.all("h1")[0]


def test_the_page_needs_nothing_else() -> None:
    elements = Elements(page(made()))
    addresses = [value for _, a in elements.found for name, value in a.items() if name in ("src", "href", "xlink:href")]
    assert all((address or "").startswith(("data:", "#")) for address in addresses)
    assert "http" not in "".join(address or "" for address in addresses)
    assert "@import" not in elements.text
    assert "url(" not in elements.text


def test_images_are_the_true_pixels_in_rows_and_runs_in_columns() -> None:
    comparison = made()
    text = page(comparison)
    first = text[text.index('id="images-0"') : text.index('id="images-1"')]
    cells = dict(zip([(b["data-row"], b["data-column"]) for b in Elements(first).all("button", "zoom")],
                     [decoded(i["src"]) for i in Elements(first).all("img")], strict=True))  # fmt: skip
    crop = comparison.groups[0].crops[1]
    assert len(cells) == 2 * (3 + 3 + 2)
    for column, of in enumerate((comparison.groups[0].x, comparison.pictures[0].x_hat, comparison.pictures[1].x_hat)):
        assert of is not None
        for row in range(2):
            assert np.array_equal(cells[str(3 * row), str(column)], to_uint8(of[row, 0]).numpy())
        assert np.array_equal(cells["4", str(column)], to_uint8(crop.of(of[1, 0])).numpy())
    assert ("2", "0") not in cells  # the original has no error


def test_every_image_has_a_text_and_says_what_it_is() -> None:
    elements = Elements(page(made()))
    texts = [image["alt"] for image in elements.all("img")]
    assert all(texts)
    assert "Image 2, the original" in texts
    assert any((text or "").startswith("Image 1 reconstructed by gan, PSNR ") for text in texts)
    assert all(button["aria-label"] for button in elements.all("button", "zoom"))
    charts = [div["aria-label"] for div in elements.all("div") if div.get("role") == "img"]
    assert any((text or "").startswith("Distortion and perception. lpips_x") for text in charts)


def test_runs_on_other_images_stand_apart_with_the_reason() -> None:
    text = Elements(page(made())).text
    assert "Not on the same images as mse: other (data MNIST, not Digits)." in text
    assert "other does not compare with mse: data MNIST, not Digits." in text


def test_what_there_is_not_is_said() -> None:
    comparison = made()
    text = Elements(page(comparison)).text
    assert "No samples: it draws none." in text
    missing = Pictures(no_reconstructions="no checkpoint yet", no_samples="no checkpoint yet")
    pictures = [*comparison.pictures[:2], missing]
    text = Elements(page(replace(comparison, pictures=pictures, groups=group_by_images(pictures)))).text
    assert "other is not shown: no checkpoint yet." in text
    nothing = replace(comparison, pictures=[missing] * 3, groups=[], curves=[], scatters=[], configs={})
    text = Elements(page(replace(nothing, numbers=compare_numbers([], [])))).text
    assert "No run has reconstructions." in text
    assert "No run has any numbers yet." in text
    assert "They do not differ." in text
    assert "Trade-offs" not in text


def test_best_and_dimmed_numbers_are_marked_in_the_table() -> None:
    text = page(made())
    row = text[text.index('<tr><th scope="row" data-value="gan">') :]
    row = row[: row.index("</tr>")]
    assert (
        '<b>21</b><span class="best" title="the best of those that compare" role="img" aria-label="best">★</span>'
        in row
    )
    other = text[text.index('<tr><th scope="row" data-value="other">') :]
    assert '<td data-value="22.0" class="starts dim">22<sup><a href="#note-a">a</a></sup></td>' in other


def test_the_page_is_the_same_each_time() -> None:
    assert page(made()) == page(made())


def test_files_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "curves.png",
        "index.html",
        "metrics.csv",
        "reconstructions.png",
        "samples.png",
        "scatter.png",
        "spectra.png",
    ]
    write(made(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert sorted(capsys.readouterr().out.split()) == [str(tmp_path / name) for name in names]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(sheets, "stack", broken)
    changed = replace(made(), name="changed")
    with pytest.raises(OSError, match="no space left"):
        write(changed, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_csv_has_all_digits_and_what_each_number_is_of(tmp_path: Path) -> None:
    write(made(), tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = {(row["run"], row["metric"]): row for row in csv.DictReader(file)}
    assert float(rows["gan", "lpips_x"]["value"]) == 0.5 - 1 / 9
    assert rows["gan", "psnr"]["best"] == "yes"
    assert rows["other", "psnr"]["comparable"] == "no"
    assert rows["other", "psnr"]["why_not"] == "other does not compare with mse: data MNIST, not Digits."
    assert rows["mse", "psnr"]["data"] == "Digits"


def test_the_page_allows_its_own_script_and_styles_alone() -> None:
    """By the hashes that a browser computes: a script that got in by a mistake of ours would not run."""
    text = page(made((EVIL, "gan", "other")))
    (policy,) = [
        a["content"] or "" for a in Elements(text).all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src-elem")):
        contents = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.S)
        hashes = {base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents}
        assert hashes
        assert set(rules[rule].split()) == {f"'sha256-{each}'" for each in hashes}
    assert not [a for _, attributes in Elements(text).found for a in attributes if a.startswith("on")]
    assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")
