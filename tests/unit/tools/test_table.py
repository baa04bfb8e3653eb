"""One table of several runs, from the files that runs leave behind."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lit_vae.tools.compare import table


def run(
    folder: Path,
    name: str,
    model: str = "VAE",
    metrics: dict[str, float] | None = None,
    prior: dict[str, Any] | None = None,
    **protocol: Any,
) -> str:
    """A run directory with its numbers."""
    path = folder / name
    (path / "priors").mkdir(parents=True)
    (path / "config.yaml").write_text(f"model:\n  class_path: lit_vae.models.{model}\n")
    of = {"data": "Digits", "image_shape": [1, 8, 8], "values": "dequantized", **protocol}
    if metrics is not None:
        record = {"checkpoint": f"{path}/checkpoints/best.ckpt", **of, "metrics": metrics}
        (path / "test_metrics.json").write_text(json.dumps(record))
    if prior is not None:
        (path / "priors" / "gmm.json").write_text(json.dumps({"checkpoint": "best.ckpt", **of, **prior}))
    return name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def test_a_row_for_each_run_and_blanks_for_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        run(folder, "vae", "VAE", {"test/elbo": -33.80981, "test/rate": 6.5}),
        run(folder, "ae", "AE", {"test/mse": 0.5}, {"metrics": {"test/fd_pca64_gmm": 3.0}}),
    ]
    table(runs, "out/table.md")
    assert Path("out/table.md").read_text() == (
        "| run | model | test/elbo | test/rate | test/fd_pca64_gmm | test/mse |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| vae | VAE | -33.8098 | 6.5000 |  |  |\n"
        "| ae | AE |  |  | 3.0000 | 0.5000 |\n"
    )
    shown = capsys.readouterr().out
    assert "-33.8098" in shown
    assert "comparable" not in shown
    assert shown.endswith("out/table.md\n")


def test_csv_keeps_all_digits_and_the_protocol(folder: Path) -> None:
    value = -33.809814453125
    table([run(folder, "vae", metrics={"test/elbo": value}), run(folder, "ae", "AE", {}, data="MNIST")], "t.csv")
    with Path("t.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["test/elbo"]) == value
    assert second["test/elbo"] == ""
    assert [row["comparable"] for row in (first, second)] == ["yes", "no"]
    assert [row["data"] for row in (first, second)] == ["Digits", "MNIST"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"data": "MNIST"}, "MNIST [1, 8, 8] dequantized"),
        ({"image_shape": [3, 8, 8]}, "Digits [3, 8, 8] dequantized"),
        ({"values": "uint8"}, "Digits [1, 8, 8] uint8"),
    ],
)
def test_runs_on_other_images_are_marked(
    folder: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any], named: str
) -> None:
    runs = [
        run(folder, "first", metrics={"test/mse": 1.0}),
        run(folder, "other", metrics={"test/mse": 2.0}, **other),
        run(folder, "same", metrics={"test/mse": 3.0}),
    ]
    table(runs, "t.md")
    note = f"other is not comparable: {named}, where first is Digits [1, 8, 8] dequantized."
    assert f"* {note}" in " ".join(capsys.readouterr().out.split())
    text = Path("t.md").read_text()
    assert "| other \\* | VAE |" in text
    assert "| same | VAE |" in text
    assert text.count(note) == 1


def test_numbers_that_were_measured_otherwise_are_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = {"num_images": 10000, "weights_sha256": "a", "seconds": 3.0}
    runs = [
        run(folder, "first", metrics={"test/fid": 1.0, "test/psnr": 20.0}, protocols={"test/fid": of}),
        run(folder, "slow", metrics={"test/fid": 2.0}, protocols={"test/fid": {**of, "seconds": 9.0}}),
        run(
            folder,
            "more",
            metrics={"test/fid": 0.5, "test/psnr": 21.0},
            protocols={"test/fid": {**of, "num_images": 50000}},
        ),
    ]
    table(runs, "t.md")
    text = Path("t.md").read_text()
    assert "| slow | VAE | 2.0000 |  |" in text
    assert "| more | VAE | 0.5000 \\* | 21.0000 |" in text
    note = "test/fid of more does not compare with that of first: num_images: 50000 here, 10000 there."
    assert f"* {note}" in " ".join(capsys.readouterr().out.split())
    assert text.count(note) == 1


def test_what_evaluate_measured_is_there(folder: Path) -> None:
    name = run(folder, "vae", metrics={"test/elbo": 1.0})
    others = {"30 steps of DDIM, guidance 2": {"metrics": {"test/fd_x": 7.0}}}
    record = {"model": {"metrics": {"test/fd_x": 9.0}}, "gmm": {"metrics": {"test/fd_x": 2.0}}, "samplings": others}
    (folder / name / "evaluation.json").write_text(json.dumps(record))
    table([name], "t.md")
    assert "| test/elbo | test/fd_x | test/fd_x_gmm |" in Path("t.md").read_text()
    assert "| vae | VAE | 1.0000 | 9.0000 | 2.0000 |" in Path("t.md").read_text()


def test_numbers_of_two_checkpoints_in_a_row_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = {"checkpoint": "last.ckpt", "metrics": {"test/fd_pca64": 1.0}}
    table([run(folder, "vae", metrics={"test/mse": 1.0}, prior=prior)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "vae: the numbers of priors/gmm.json are of last.ckpt, the others of best.ckpt." in shown


def test_runs_become_columns_where_rows_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {f"test/a_long_name_{i}": float(i) for i in range(12)}
    runs = [run(folder, "vae", metrics=metrics), run(folder, "ae", metrics=metrics)]
    shown = {}
    for columns in ("80", "400"):
        monkeypatch.setenv("COLUMNS", columns)
        table(runs)
        shown[columns] = [line for line in capsys.readouterr().out.splitlines() if "a_long_name_11" in line]
    assert "11.0000 │ 11.0000" in shown["80"][0]
    assert "a_long_name_10" in shown["400"][0]


@pytest.mark.parametrize("out", ["t.txt", "t", "t.png"])
def test_a_table_of_another_kind_is_refused(folder: Path, out: str) -> None:
    with pytest.raises(ValueError, match=rf"--out {out}: a table is written as Markdown or CSV\."):
        table([run(folder, "vae", metrics={"test/mse": 1.0})], out)
    assert not Path(out).exists()


def test_all_runs_without_numbers_are_named_at_once(folder: Path) -> None:
    runs = [run(folder, "vae", metrics={"test/mse": 1.0}), run(folder, "untested"), "nothing"]
    with pytest.raises(ValueError, match=r"(?s)untested: there is no test_metrics\.json.*nothing: there is no") as info:
        table(runs)
    assert "lightning test --config untested/config.yaml --ckpt_path best" in str(info.value)


def test_a_broken_record_is_named(folder: Path) -> None:
    name = run(folder, "vae", metrics={})
    (folder / name / "test_metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"vae/test_metrics\.json is not JSON .* Restore the file"):
        table([name])


def test_whatever_runs_and_numbers_are_called_is_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By another reader of Markdown: the table has the names as they are, and nothing else."""
    from markdown_it import MarkdownIt

    names = [
        "a|b",
        "<img src=x onerror=1>",
        "`code` *bold* _it_ ~~no~~ $x$ &amp;",
        "[to](http:x) ![i](y)",
        "two\nlines",
    ]
    names += ["back\\slash\\", "[red]markup[/]", "snake_case_name"]
    folders = [f"run{i}" for i in range(len(names))]
    for i, name in enumerate(names):
        run(folder, f"run{i}", metrics={f"test/{name}": float(i)})
    table([*folders, run(folder, "[b]o[/x]|ther", metrics={"test/a": 1.0}, values="<b>uint8</b>")], "table.md")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(Path("table.md").read_text())
    cells = [token for token in tokens if token.type == "inline"]
    assert {child.type for cell in cells for child in cell.children or []} <= {"text", "text_special"}
    texts = ["".join(child.content for child in cell.children or []) for cell in cells]
    assert texts[:10] == ["run", "model", *(f"test/{name}".replace("\n", " ") for name in names)]
    assert "[b]o[/x]|ther *" in texts
    assert any("<b>uint8</b>, where run0 is" in text for text in texts)
    assert "[red]markup[/]" in capsys.readouterr().out.replace("\n", "")
