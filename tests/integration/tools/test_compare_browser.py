"""The page of ``lit-vae compare`` in headless Chromium: what a user sees and does, on a phone and at a desk."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_vae.tools import main

pytestmark = pytest.mark.browser

PHONE, DESK = 390, 1280


@pytest.fixture(scope="session")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one tested, one validated only, one without a checkpoint."""
    folder = tmp_path_factory.mktemp("compare")
    copies = [Path(shutil.copytree(runs[family], folder / family)) for family in ("VAE", "AE", "CVAE")]
    shutil.rmtree(copies[2] / "checkpoints")
    for i, copy in enumerate(copies):
        (copy / "metrics.csv").write_text(
            f"step,val/psnr,val/rate,val/distortion\n9,{10 + i},{5 - i},1\n19,{12 - i},6,{i}\n"
        )
    return compared(folder, copies)


def compared(folder: Path, copies: Sequence[Path]) -> Path:
    """The page of these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv", ["lit-vae", "compare", *map(str, copies), "--out", str(folder / "out"), "--num_images=2"]
        )
        main()
    return folder / "out" / "index.html"


MEASURED = {
    "psnr": 24.43774, "ssim": 0.91234, "mse": 0.01234, "lpips_featurenet": 0.12345, "rfd_featurenet": 12.345,
    "sharpness": 0.61234, "laplacian_ratio": 0.51234, "elbo": -1234.5, "distortion": 1111.1, "rate": 123.4,
    "bits_per_dim": 5.4321,
}  # fmt: skip


@pytest.fixture(scope="session")
def measured(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs with as many measured numbers as the rows of a comparison have."""
    folder = tmp_path_factory.mktemp("measured")
    copies = [Path(shutil.copytree(runs["VAE"], folder / name)) for name in ("mse", "perceptual", "perceptual_gan")]
    for i, copy in enumerate(copies):
        values = {f"test/{name}": value * (1 + 0.001 * i) for name, value in MEASURED.items()}
        replicates = {name: [value * (1 + 0.0001 * (-1) ** g) for g in range(20)] for name, value in values.items()}
        of = {"data": "Digits", "image_shape": [1, 8, 8], "values": "dequantized", "num_images": 180}
        record = {**of, "checkpoint": "best.ckpt", "metrics": values, "replicates": replicates}
        (copy / "test_metrics.json").write_text(json.dumps(record))
    return compared(folder, copies)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", *quiet):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, page: Path) -> Open:
    """The page at a width, in a colour scheme, with or without scripts."""

    def open_page(width: int = DESK, scheme: str = "light", scripts: bool = True, of: Path = page) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        preferences = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        browser.get_log("browser")
        browser.get(of.as_uri())
        return browser

    return open_page


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(browser).send_keys(getattr(Keys, key)).perform()


def column(browser: Any, name: str) -> list[str]:
    """The text of a column's cells, from top to bottom."""
    script = """
        const heads = [...document.querySelectorAll("#numbers-table th[aria-sort]")];
        const head = heads.find((th) => th.textContent.trim().startsWith(arguments[0]));
        const i = [...head.parentElement.children].indexOf(head);
        const rows = [...document.querySelectorAll("#numbers-table tbody tr")];
        return rows.map((row) => row.children[i].dataset.value ?? "");
    """
    return browser.execute_script(script, name)


def sort_button(browser: Any, name: str) -> Any:
    buttons = browser.find_elements("css selector", ".numbers th[aria-sort] button")
    return next(b for b in buttons if b.get_attribute("textContent").startswith(name))


def large(browser: Any) -> list[str]:
    """What the images in the open dialog say they are."""
    return [image.get_attribute("alt") for image in browser.find_elements("css selector", "dialog[open] .panes img")]


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5.0
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_loads_without_an_error_and_fits(opened: Open, width: int, scheme: str) -> None:
    browser = opened(width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    requests = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in requests if not name.startswith("data:")] == []
    browser.execute_script("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    images = "[...document.querySelectorAll('img')]"
    assert eventually(
        lambda: browser.execute_script(
            f"return {images}.every((i) => i.complete && i.naturalWidth > 3 && i.clientWidth > 60)"
        )
    )
    assert browser.execute_script(f"return {images}.length") == 2 * (3 + 3 + 2) + 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(opened: Open, scheme: str) -> None:
    browser = opened(DESK, scheme)

    def luminance(colour: str) -> float:
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def colour(selector: str, of: str) -> str:
        return browser.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{of}")

    ground = luminance(colour("body", "backgroundColor"))
    assert ground > 0.9 if scheme == "light" else ground < 0.02
    for selector, of in (("body", "color"), (".lede", "color"), ("nav a", "color"), (".charts svg text", "fill")):
        text = luminance(colour(selector, of))
        contrast = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert contrast > 4.5, (selector, contrast)  # WCAG 2, level AA


def test_a_click_sorts_the_better_end_first_and_then_the_other(opened: Open) -> None:
    browser = opened()
    browser.find_element("css selector", "#show-all").click()
    given = column(browser, "psnr")
    assert given == ["12.0", "11.0", "10.0"]
    button = sort_button(browser, "distortion")
    head = browser.execute_script("return arguments[0].parentElement", button)
    assert head.get_attribute("aria-sort") == "none"
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(browser, "distortion") == ["0.0", "1.0", "2.0"]
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(browser, "distortion") == ["2.0", "1.0", "0.0"]
    assert column(browser, "psnr") == given[::-1]  # whole rows moved
    sort_button(browser, "psnr").click()
    assert column(browser, "psnr") == given  # higher is better: from the top
    assert head.get_attribute("aria-sort") == "none"


def test_sorting_by_the_keyboard_and_by_name(opened: Open) -> None:
    browser = opened()
    button = sort_button(browser, "run")
    browser.execute_script("arguments[0].focus()", button)
    press(browser, "ENTER")
    assert column(browser, "run") == ["AE", "CVAE", "VAE"]
    press(browser, "SPACE")
    assert column(browser, "run") == ["VAE", "CVAE", "AE"]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_click_enlarges_an_image_beside_its_original(opened: Open, width: int) -> None:
    browser = opened(width)
    image = browser.find_element("css selector", 'button.zoom[data-row="0"][data-column="1"]')
    small = image.size["width"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    image.click()
    original, reconstruction = large(browser)
    assert original == "Image 1, the original"
    assert reconstruction.startswith("Image 1 reconstructed by VAE, PSNR ")
    panes = browser.find_elements("css selector", "dialog[open] .panes img")
    assert all(pane.size["width"] > 1.5 * small for pane in panes)
    box = browser.find_element("css selector", "dialog").rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_the_keyboard_goes_from_run_to_run_and_from_image_to_image(opened: Open) -> None:
    browser = opened()
    image = browser.find_element("css selector", 'button.zoom[data-row="0"][data-column="1"]')
    browser.execute_script("arguments[0].focus()", image)
    press(browser, "ENTER")
    assert large(browser)[1].startswith("Image 1 reconstructed by VAE")
    press(browser, "ARROW_RIGHT")
    assert large(browser)[1].startswith("Image 1 reconstructed by AE")
    press(browser, "ARROW_RIGHT")  # there is no further one
    assert large(browser)[1].startswith("Image 1 reconstructed by AE")
    press(browser, "ARROW_DOWN")
    assert large(browser)[0] == "Image 2, the original"
    assert large(browser)[1].startswith("Image 2 reconstructed by AE")
    press(browser, "ARROW_LEFT", "ARROW_LEFT")
    assert large(browser) == ["Image 2, the original"]
    press(browser, "ARROW_UP", "ARROW_RIGHT", "ESCAPE")
    assert large(browser) == []
    focused = browser.switch_to.active_element
    assert (focused.get_attribute("data-row"), focused.get_attribute("data-column")) == ("0", "1")


def test_crops_errors_and_samples_are_enlarged_too_and_buttons_do(opened: Open) -> None:
    browser = opened()

    def click(selector: str) -> None:
        browser.execute_script("document.querySelector(arguments[0]).click()", selector)

    click('button.zoom[data-row="4"][data-column="2"]')
    assert large(browser) == ["Crop of image 2, the original", "Crop of image 2 by AE"]
    click("dialog [data-close]")
    click('button.zoom[data-row="5"][data-column="1"]')
    original, error = large(browser)
    assert original == "Image 2, the original"
    assert error.startswith("Errors of VAE in image 2")
    click("dialog [data-close]")
    click('button.zoom[data-group="samples"]')
    assert large(browser) == ["16 samples of VAE"]
    click('dialog [data-step="1"]')
    assert large(browser) == ["16 samples of AE"]
    click("dialog [data-close]")
    assert large(browser) == []


def test_crops_and_errors_can_be_hidden_even_without_scripts(opened: Open) -> None:
    for scripts in (True, False):
        browser = opened(scripts=scripts)
        for kind in ("crop", "error"):
            rows = browser.find_elements("css selector", f"tr.{kind}")
            assert len(rows) == 2
            assert all(row.is_displayed() for row in rows)
            browser.find_element("id", f"show-{kind}").click()
            assert not any(row.is_displayed() for row in rows)
            browser.find_element("id", f"show-{kind}").click()
    assert not browser.find_element("css selector", ".needs-script").is_displayed()


def test_what_is_missing_is_said_where_one_looks_for_it(opened: Open) -> None:
    browser = opened()
    text = browser.find_element("tag name", "main").get_attribute("textContent")
    assert "CVAE is not shown: no checkpoint yet." in text
    assert "No samples: no checkpoint yet." in text
    assert len(browser.find_elements("css selector", "#curves svg:not(.glyph)")) == 3
    assert len(browser.find_elements("css selector", "#trade-offs svg:not(.glyph)")) == 2


def visible_heads(browser: Any) -> list[str]:
    """The names in the head of the table of numbers that a user sees without scrolling sideways."""
    script = """
        const region = document.querySelector("#numbers-table").parentElement.getBoundingClientRect();
        return [...document.querySelectorAll("#numbers-table th[aria-sort]")]
            .filter((th) => th.offsetParent && th.getBoundingClientRect().right <= region.right + 1)
            .map((th) => th.querySelector("button").firstChild.textContent.trim());
    """
    return browser.execute_script(script)


@pytest.mark.parametrize("width", [DESK, 1440])
def test_the_numbers_that_decide_fit_a_laptop_and_the_others_come_with_a_switch(
    opened: Open, measured: Path, width: int
) -> None:
    browser = opened(width, of=measured)
    names = [name for name in MEASURED if name not in {"ssim", "mse", "laplacian_ratio", "distortion"}]
    assert sorted(visible_heads(browser)) == sorted(["run", *names])
    browser.find_element("css selector", "#show-all").click()
    script = """
        const heads = [...document.querySelectorAll("#numbers-table th[aria-sort]")];
        return heads.filter((head) => head.offsetParent).length;
    """
    assert browser.execute_script(script) > len(MEASURED)  # those, and what training cost


def test_the_names_of_runs_stay_in_view_on_a_phone(opened: Open, measured: Path) -> None:
    browser = opened(PHONE, of=measured)
    script = """
        const region = document.querySelector("#numbers-table").parentElement;
        region.scrollLeft = 10000;
        const [name, , ...cells] = document.querySelectorAll("#numbers-table tbody tr:first-child > *");
        const shown = cells.filter((cell) => cell.offsetParent);
        const edge = name.getBoundingClientRect();
        const last = shown.at(-1).getBoundingClientRect();
        const names = [...document.querySelectorAll("#numbers-table tbody .run")];
        const overflow = Math.max(...names.map((run) => run.scrollWidth - run.clientWidth));
        return [edge.left - region.getBoundingClientRect().left, last.left - edge.right, overflow];
    """
    left, gap, overflow = browser.execute_script(script)
    assert overflow <= 0
    assert abs(left) <= 1
    assert gap >= 0  # the last number is beside the name, not below it


def test_numbers_and_differences_show_their_intervals(opened: Open, measured: Path) -> None:
    """Half of an interval is 2.093 sqrt(19) times the deviation; alike in both runs, all but a thousandth cancels."""
    browser = opened(DESK, of=measured)
    row = browser.find_element("css selector", '#numbers-table tr:has([data-value="mse"])')
    assert "24.438 ±0.022" in row.text
    differences = browser.find_elements("css selector", "#differences-table tbody tr")
    assert [row.text.split()[0] for row in differences] == ["perceptual", "perceptual_gan"]
    assert "+0.024438 ±0.000022" in differences[0].text
