"""Runs that differ in their seed alone, and what is said of all of them."""

from dataclasses import replace
from typing import Any

import pytest
from compare_helpers import entry, number
from scipy import stats

from lit_vae.intervals import over_repetitions
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.seeds import by_seed, metrics_of, over_seeds


def run(label: str, seed: int, psnr: float, weight: float = 1.0, **protocol: Any) -> Entry:
    config = {"seed_everything": seed, "model": {"init_args": {"weight": weight}}, "trainer": {"max_steps": 100}}
    numbers = {"psnr": number(psnr, protocol=protocol), "ssim": number(0.5), "seconds": number(9.0, split="")}
    return entry(label, numbers, config=config)


MSE = [run("mse", 0, 20.0), run("mse_seed1", 1, 22.0), run("mse_seed2", 2, 24.0)]
GAN = [run("gan", 0, 19.5, 2.0), run("gan_seed1", 1, 21.0, 2.0), run("gan_seed2", 2, 23.0, 2.0)]


def labels(groups: list[list[Entry]]) -> list[list[str]]:
    return [[entry.label for entry in group] for group in groups]


def test_runs_of_one_configuration_and_other_seeds_are_a_group() -> None:
    mixed = [MSE[0], GAN[0], GAN[1], MSE[1]]
    assert labels(by_seed(mixed)) == [["mse", "mse_seed1"], ["gan", "gan_seed1"]]
    drawn = [replace(entry, label=f"{entry.label}@drawn", variant="drawn") for entry in MSE]
    assert len(by_seed([*MSE, *drawn])) == 2
    assert len(by_seed([MSE[0], replace(MSE[0], label="copy"), replace(MSE[0], label="another")])) == 3
    assert len(by_seed([entry("a"), entry("b")])) == 2  # nothing is known of them


def test_a_run_that_ended_early_and_others_with_its_budget_are_a_group() -> None:
    leader = replace(MSE[0], records=replace(MSE[0].records, run={"step": 60}))
    bound = {**MSE[1].records.config, "trainer": {"max_steps": 60, "min_steps": 60}}
    follower = replace(MSE[1], records=replace(MSE[1].records, config=bound, run={"step": 60}))
    assert labels(by_seed([leader, follower])) == [["mse", "mse_seed1"]]
    longer = replace(follower, records=replace(follower.records, run={"step": 61}))
    assert len(by_seed([leader, longer])) == 2


def test_runs_with_a_budget_by_the_clock_are_a_group_whatever_their_steps() -> None:
    clock = {"trainer": {"max_time": "00:00:10:00"}}
    runs = [replace(e, records=replace(e.records, config=e.records.config | clock)) for e in MSE[:2]]
    took = [replace(e, records=replace(e.records, run={"step": n})) for e, n in zip(runs, (60, 61), strict=True)]
    assert labels(by_seed(took)) == [["mse", "mse_seed1"]]


def test_means_and_paired_differences_have_student_s_intervals() -> None:
    one, other = over_seeds(by_seed([*MSE, *GAN]))
    assert (one.label, one.others, set(one.means)) == ("mse", ("mse_seed1", "mse_seed2"), {"psnr"})
    interval = stats.t.interval(0.95, 2, loc=22.0, scale=stats.sem([20.0, 22.0, 24.0]))
    mean, half_width = one.means["psnr"]
    assert (mean - half_width, mean + half_width) == pytest.approx(interval, rel=1e-12)
    assert one.against_first == {}
    assert other.against_first["psnr"] == over_repetitions([-0.5, -1.0, -1.0])
    assert metrics_of([one, other]) == ["psnr"]


def test_a_single_seed_has_no_mean_and_other_protocols_have_none_together() -> None:
    assert [row.label for row in over_seeds(by_seed([*MSE, GAN[0]]))] == ["mse"]
    apart = [run("a", 0, 20.0, n=1), run("b", 1, 21.0, n=2)]
    assert over_seeds(by_seed(apart))[0].means == {}
