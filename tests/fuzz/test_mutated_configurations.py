"""Mutated configurations: each trains on what it was given, or is refused in few words that name what is wrong.

100 cases, the same ones each time, have every kind of edit and every base. Others:
``pytest -m fuzz --hypothesis-seed=7``. More, before a release or after work on what is refused: ``FUZZ_MUTATIONS=300``.
"""

import os
from pathlib import Path

import pytest

COUNT, PROCESSES = int(os.environ.get("FUZZ_MUTATIONS", "100")), 2

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]


@pytest.mark.timeout(60 + 6 * COUNT)  # half a second each on two cores that do nothing else
def test_a_mutated_configuration_trains_as_it_says_or_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from fuzz_campaign import campaign, table  # with hypothesis, for which no other test should wait

    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    start = request.config.getoption("--hypothesis-seed")
    outcomes = list(campaign(tmp_path, COUNT, PROCESSES, None if start is None else int(start)))
    print(table(outcomes))  # seen with -rP
    wrong = [f"{outcome.case}\n    {'; '.join(outcome.faults)}" for outcome in outcomes if outcome.faults]
    assert not wrong, "\n".join(wrong)
    accepted = sum(outcome.ended.code == 0 for outcome in outcomes)
    assert accepted >= COUNT // 20, "nearly all were refused: a mistake of this test"
