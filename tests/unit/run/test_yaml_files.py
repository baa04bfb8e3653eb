"""YAML files that are none, or not what they seem: each error names the file and the line."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lit_vae.run.yaml_files import MAX_NODES, check, read_yaml, refuse_special_files
from lit_vae.tools import main as lit_vae_main

ROOT = Path(__file__).resolve().parents[3]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
BROKEN = {
    "an open bracket": (b"a: 1\nb: [1,\n", "line 3, column 1: not YAML: "),
    "a tab": (b"a:\n\t- b\n", "line 2, column 1: not YAML: found character that cannot start any token."),
    "latin-1": ("a: 1\nb: caf\xe9\n".encode("latin-1"), "line 2 is not UTF-8 (byte 0xe9). Save it as UTF-8."),
    "UTF-16": ("a: 1\n".encode("utf-16"), "is UTF-16. Save it as UTF-8."),
    "NUL": (b"a: \x00\n", "not YAML: "),
    "nothing": (b"", "the file is empty. Give a configuration (YAML)."),
    "a comment": (b"# nothing\n", "the file is empty. Give a configuration (YAML)."),
    "a list": (b"- a\n", "contains a list, and must contain keys and values (YAML)."),
    "a word": (b"hello\n", "contains a str, and must contain keys and values (YAML)."),
    "a number as key": (b"1: 2\n", "the key 1 must be a name."),
    "a list as key": (b"[1, 2]: 3\n", "line 1, column 1: not YAML: "),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2, column 1: not YAML: "),
    "a Python object": (b"a: !!python/object/apply:os.getcwd []\n", "line 1, column 4: not YAML: could not"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is given twice, first in line 1."),
    "a key twice, quoted": (b"a: 1\n'a': 3\n", "line 2, column 1: the key 'a' is given twice, first in line 1."),
    "a key twice, deep": (b"a:\n  - b: {c: 1,\n      d: 2, c: 3}\n", "line 3, column 13: the key 'c' is given"),
    "aliases that explode": (BOMB.encode(), f"line 5, column 40: more than {MAX_NODES:,} values, with all aliases"),
    "an alias of itself": (b"a: &a [1, *a]\n", "line 1, column 11: *a has no &a before it."),
    "an alias of nothing": (b"a: *b\n", "line 1, column 4: *b has no &b before it."),
    "bottomless": (b"a: " + b"[" * 100_000, "line 1, column 63: more than 60 nested levels."),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named_at_once(tmp_path: Path, name: str) -> None:
    content, expected = BROKEN[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(ValueError) as error:
        read_yaml(path)
    assert time.process_time() - began < 1.0
    assert str(error.value).startswith(f"{path}: ")
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, kind in (
        (tmp_path / "pipe", "named pipe"),
        (tmp_path / "folder", "folder"),
        (Path("/dev/zero"), "device"),
    ):
        with pytest.raises(ValueError) as error:
            read_yaml(path)
        assert str(error.value) == f"{path}: is a {kind}, not a regular file. Give a file."
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read \(No such file or directory\)\."):
        read_yaml(tmp_path / "none.yaml")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.yaml").open("wb") as file:
        file.truncate(2**40)  # of holes
    with pytest.raises(
        ValueError, match=r"config\.yaml: has 1,099,511,627,776 bytes, more than the limit of 16,777,216"
    ):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: 1}\nc: *a\nd: [*a, *a]\n",
        "base: &base {x: 1, y: 2}\nmore:\n  <<: *base\n  x: 3\n",
        "a: {b: 1}\nc: {b: 1}\n",
        "- {a: 1}\n- {a: 1}\n",
        "a: [b, b, b]\nb: b\n",
        "{a: a, b: {a: a}}",
    ],
)
def test_aliases_and_equal_keys_of_different_mappings_are_fine(text: str) -> None:
    check(text)


def test_shipped_configurations_are_read_as_by_yaml() -> None:
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(files) > 70
    for file in files[::6]:
        assert read_yaml(file) == yaml.safe_load(file.read_text())


def test_a_mark_of_byte_order_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "config.yaml") == {"a": 1}


def test_paths_of_a_command_line_that_never_end_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refuse_special_files(["fit", "--config", str(tmp_path), "--x=none", "--y", "a\0b", "--out", os.devnull])
    for given, option in (
        (["--config", f"{tmp_path}/pipe"], "--config"),
        ([f"--data.root={tmp_path}/pipe"], "--data.root"),
    ):
        with pytest.raises(ValueError) as error:
            refuse_special_files(["fit", *given])
        assert str(error.value) == f"{option} {tmp_path}/pipe: is a named pipe. Give a regular file or a folder."


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that must fail says."""
    from lit_vae.cli import main as lightning_main

    def run(program: str, *args: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [program, *map(str, args)])
        with pytest.raises(SystemExit) as left:
            {"lightning": lightning_main, "lit-vae": lit_vae_main}[program]()
        assert left.value.code in (1, 2)
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert len(message.splitlines()) <= 25
        return message

    return run


def test_every_command_names_the_file_of_a_configuration_or_an_overlay(
    said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good, folder = ROOT / "configs" / "vae" / "digits.yaml", tmp_path / "study"
    folder.mkdir()
    bad = folder / "bad.yaml"
    commands = {
        "a key twice": ["lightning", "fit", "--config", good, "--config", bad],
        "aliases that explode": ["lightning", "test", "--config", bad],
        "latin-1": ["lit-vae", "prepare", bad],
        "nothing": ["lit-vae", "prepare", good, "--config", bad],
        "UTF-16": ["lit-vae", "submit", bad],
        "an open bracket": ["lit-vae", "study", folder, "--out", tmp_path / "out"],
    }
    for broken, command in commands.items():
        content, expected = BROKEN[broken]
        bad.write_bytes(content)
        message = said(*command)
        assert str(bad) in message, command
        assert expected in message, command
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bad.yaml", "study"]


def test_an_included_file_is_looked_at_too(said: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "trainer.yaml").write_text("max_epochs: 1\nmax_epochs: 2\n")
    (tmp_path / "main.yaml").write_text("trainer: trainer.yaml\n")
    message = said("lightning", "fit", "--config", tmp_path / "main.yaml")
    assert "the key 'max_epochs' is given twice, first in line 1" in message
    assert "trainer" in message
