"""The benchmarks run, and what they make of the times is right; the times themselves are not tested."""

import math
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # the package is not installed: it is for those who have the repository


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        ["step", "feed", "precision", "quantizer", "sampling", "lpips", "ldm", "hierarchy", "adversarial", "fid"],
        ["ranks", "scaling"],
    ],
    ids=" ".join,
)
def test_every_section_makes_rows_of_positive_numbers(sections: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import RESULTS, main

    before = RESULTS.read_text() if RESULTS.exists() else None
    main([*sections, "--quick", "--threads", str(torch.get_num_threads())])
    head = ("| what ", "| --- ")
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and not line.startswith(head)
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = {"adversarial": "adversarial step", "ranks": "step"}
    assert {row[0].split(",")[0] for row in rows} == {names.get(section, section) for section in sections}
    assert len({(row[0], row[1]) for row in rows}) == len(rows)
    for row in rows:
        numbers = [float(number) for number in re.findall(r"[\d.e+-]+(?=[ )])", f"{row[2]} {row[3]}")]
        assert len(numbers) == (4 if row[4] else 1), row
        assert all(math.isfinite(number) and number > 0.0 for number in numbers), row
    # nothing is kept unless asked for
    assert (RESULTS.read_text() if RESULTS.exists() else None) == before


def test_the_bare_loop_is_the_training_that_lightning_does() -> None:
    """Same data, same start, same noise: the same terms to the last bit, so that it is the same work that is timed."""
    from lightning.pytorch import Trainer

    from benchmarks.experiment import BareLoop, build, on_fake_images

    config = on_fake_images("vae/mnist_binary", num_batches=6, batch_size=4)
    bare = BareLoop(config, torch.device("cpu"), log_every=1)
    torch.manual_seed(1)
    bare.seconds_per_step(warmup=2)
    model, data = build(config)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    torch.manual_seed(1)
    trainer.fit(model, datamodule=data)
    assert bare.step == trainer.global_step == 6
    expected = bare.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert {name: float(trainer.callback_metrics[f"train/{name}"]) for name in bare.logged[-1]} == bare.logged[-1]


def test_a_ratio_is_taken_within_a_round() -> None:
    from benchmarks.timing import Row, interleave, ratio

    seconds = {"a": [2.0, 30.0, 2.0], "b": [1.0, 10.0, 2.0]}  # in the second round the machine was busy
    assert ratio(seconds, "a", "b") == (2.0, 1.5, 2.5)
    row = Row("s", "a", 2.0, "ms", "b", ratio(seconds, "a", "b"), target=1.8)
    assert row.met is False
    assert "2 (1.5 to 2.5)" in row.markdown()
    assert "<= 1.8: MISSED" in row.markdown()

    calls: list[str] = []
    times = iter(range(8))

    def run(name: str) -> float:
        calls.append(name)
        return float(next(times))

    seconds = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert seconds == {"a": [2.0, 4.0, 6.0], "b": [3.0, 5.0, 7.0]}


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.timing import Environment

    for load, busy in ((0.1, False), (3.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert any("busy" in line for line in Environment(torch.device("cpu")).lines()) == busy


@pytest.mark.parametrize("args", [["--write", "--quick"], ["fed"]])
def test_arguments_that_make_no_sense_are_refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit) as refusal:
        main(args)
    assert refusal.value.code == 2
    assert ("leave --quick out" if "--quick" in args else "there is no section fed") in capsys.readouterr().err


def test_a_section_is_written_in_its_place_and_leaves_the_others_as_they_are() -> None:
    from benchmarks.__main__ import HEAD, with_section

    results = ""
    for name, text in (("ldm", "a\n\n| b |"), ("step", "c\n\n| d |"), ("ldm", "e\n\n| f |")):
        results = with_section(results, name, text)
    assert results == f"{HEAD}\n## step\n\nc\n\n| d |\n\n## ldm\n\ne\n\n| f |\n"
