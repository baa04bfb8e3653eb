"""Which numbers compare, and which of them is the best."""

import math
from dataclasses import replace
from typing import Any

import pytest
from compare_helpers import entry, number

from lit_vae.intervals import GROUPS
from lit_vae.tools.compare.differences import ComparedNumbers, compare_numbers, differences, protocol_words
from lit_vae.tools.compare.metric_table import ordered
from lit_vae.tools.compare.numbers import Number, with_error


def compared(name: str, *numbers: Any, groups: list[int | None] | None = None) -> ComparedNumbers:
    entries = [entry("abcdef"[i], {} if n is None else {name: n}) for i, n in enumerate(numbers)]
    return compare_numbers(entries, groups or [None] * len(numbers))


def best(comparison: ComparedNumbers) -> list[int]:
    (column,) = comparison.columns
    return [i for i, cell in enumerate(column.cells) if cell is not None and cell.best]


def dimmed(comparison: ComparedNumbers) -> list[int]:
    (column,) = comparison.columns
    return [i for i, cell in enumerate(column.cells) if cell is not None and cell.footnote is not None]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("psnr", [20.0, 25.0, 21.0], [1]),
        ("mse", [0.3, 0.1, 0.2], [1]),
        ("ssim_uniform7", [0.5, 0.6], [1]),
        ("lpips_featurenet", [0.3, 0.4], [0]),
        ("rfd_featurenet", [30.0, 24.0], [1]),
        ("fid", [3.0, 2.0], [1]),
        ("precision_featurenet", [0.7, 0.8], [1]),
        ("sharpness", [0.7, 1.5, 1.2], [2]),
        ("sharpness", [0.75, 1.25], [0, 1]),  # as near
        ("elbo", [-90.0, -86.0], [1]),
        ("nll_iw128", [90.0, 86.0], [1]),
        ("bits_per_dim", [6.0, 5.0], [1]),
        ("psnr", [25.0, 25.0, 1.0], [0, 1]),
        ("rate", [1.0, 2.0], []),
        ("distortion", [1.0, 2.0], []),
        ("seconds", [1.0, 2.0], []),
        ("never_heard_of", [1.0, 2.0], []),
        ("psnr", [20.0], []),  # nothing that it is better than
    ],
)
def test_the_best_of_a_number(name: str, values: list[float], expected: list[int]) -> None:
    assert best(compared(name, *(number(value) for value in values))) == expected


def test_a_run_without_the_number_has_no_cell() -> None:
    comparison = compared("psnr", number(1.0), None, number(2.0))
    assert comparison.columns[0].cells[1] is None
    assert best(comparison) == [2]


def test_a_number_of_other_images_is_dimmed_and_never_the_best() -> None:
    comparison = compared(
        "psnr", number(1.0, data="Digits"), number(9.0, data="MNIST"), number(2.0, data="Digits"), number(3.0, data="X")
    )
    assert best(comparison) == [2]
    assert dimmed(comparison) == [1, 3]
    assert comparison.footnotes == (
        "b does not compare with a: data MNIST, not Digits.",
        "d does not compare with a: data X, not Digits.",
    )
    assert comparison.columns[0].comparable == [0, 2]


def test_the_reference_is_what_most_agree_on_but_rather_tested() -> None:
    val, test = number(1.0, "val"), number(1.0, "test")
    assert dimmed(compared("psnr", val, val, val, test)) == [3]
    assert dimmed(compared("psnr", val, val, val, test, test)) == [0, 1, 2]
    comparison = compared("psnr", val, test, test)
    assert comparison.footnotes == ("a does not compare with b: of the validation images, not of the test images.",)


def test_images_that_were_seen_to_be_others_do_not_compare() -> None:
    assert dimmed(compared("psnr", number(1.0), number(2.0), groups=[0, 1])) == [1]
    assert differences(number(1.0), number(2.0), 0, 1) == ["its images are others"]
    assert not dimmed(compared("psnr", number(1.0), number(2.0), groups=[0, None]))


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ({"n": 10}, {"n": 10}, []),
        ({"n": 10, "seconds": 1.0}, {"n": 10, "seconds": 2.0}, []),
        ({"n": 10}, {"n": 20}, ["n: 10 here, 20 there"]),
        ({"n": 10}, {}, ["n: 10 here, not recorded there"]),
        ({"sha": "a" * 64}, {"sha": "b" * 64}, ["sha: aaaaaaaaaaaa here, bbbbbbbbbbbb there"]),
    ],
)
def test_protocols_must_be_the_same(mine: dict[str, Any], theirs: dict[str, Any], expected: list[str]) -> None:
    assert differences(number(1.0, protocol=mine), number(1.0, protocol=theirs)) == expected


def test_what_only_one_says_of_its_images_is_no_difference() -> None:
    assert differences(number(1.0, values=None, data="A"), number(1.0, values="uint8", data="A", n=3)) == []
    assert differences(number(1.0, "test", num_images=5), number(1.0, "val", num_images=6)) == [
        "of the test images, not of the validation images"
    ]


def test_cost_compares_with_any() -> None:
    assert differences(number(1.0, ""), number(2.0, ""), 0, 1) == []


def test_columns_stand_in_groups_and_unknown_ones_last() -> None:
    names = {"unknown", "rate", "fid", "psnr", "elbo", "parameters", "perplexity_0", "ssim", "active_units"}
    assert ordered(names) == [
        "psnr", "ssim", "fid", "elbo", "rate", "active_units", "perplexity_0", "parameters", "unknown",
    ]  # fmt: skip


def test_a_protocol_in_words() -> None:
    data = {
        "data": "Digits",
        "image_shape": [1, 8, 8],
        "values": "uint8",
        "num_images": 1800,
        "data_seed": 0,
        "pad": None,
    }
    comparison = compared("fid", number(1.0, protocol={"resize": 299, "seconds": 3.0}, **data))
    assert protocol_words(comparison.columns[0]) == (
        "1,800 test images of Digits, 1 x 8 x 8, uint8, data_seed 0, resize 299"
    )


def with_replicates(value: float, *deviations: float) -> Number:
    """A number whose replicates deviate from it by these, over and over."""
    return replace(number(value), replicates=tuple(value + deviations[i % len(deviations)] for i in range(GROUPS)))


def test_a_number_is_tied_with_the_best_if_other_images_could_make_it_so() -> None:
    """Half of the interval of deviations +-a is 2.093 sqrt(19) a = 9.12 a; where both deviate alike, it is zero."""
    near, alike, far = 25.0 - 0.9, 25.0 - 0.9, 25.0 - 1.0
    (column,) = compared(
        "psnr",
        with_replicates(25.0, 0.1, -0.1),
        with_replicates(near, -0.0, 0.0),
        with_replicates(alike, 0.1, -0.1),
        with_replicates(far, 0.0),
        number(24.99),
    ).columns
    cells = [cell for cell in column.cells if cell is not None]
    assert [cell.best for cell in cells] == [True, False, False, False, False]
    assert [cell.tied for cell in cells] == [False, True, False, False, False]
    assert cells[0].number.half_width == pytest.approx(2.093 * math.sqrt(19) * 0.1)
    assert cells[4].number.half_width is None
    difference = column.difference(1, 0)
    assert difference is not None
    assert (difference.value, difference.half_width) == pytest.approx((-0.9, 2.093 * math.sqrt(19) * 0.1))
    assert not difference.is_certain
    assert column.difference(4, 0) is None


def test_nearest_to_one_is_tied_by_its_distance_to_one() -> None:
    (column,) = compared("sharpness", with_replicates(0.9, 0.002, -0.002), with_replicates(1.11, 0.0)).columns
    assert [cell is not None and cell.tied for cell in column.cells] == [False, True]  # 0.01 of 0.018


def test_numbers_of_other_images_have_no_difference() -> None:
    other = replace(with_replicates(1.0, 0.1), data={"data": "MNIST"})
    first = replace(with_replicates(2.0, 0.1), data={"data": "Digits"})
    (column,) = compared("psnr", first, other).columns
    assert column.difference(1, 0) is None


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [(24.43774, 0.0519, ("24.438", "0.052")), (-800.123, 12.3, ("-800", "12")), (0.61, 0.0, ("0.6100", "0.0000"))],
)
def test_a_number_is_shown_to_the_second_digit_of_its_error(value: float, half: float, words: tuple[str, str]) -> None:
    assert with_error(value, half) == words
