"""What a configuration is laid over."""

from pathlib import Path

from lit_vae.run.config_folders import configurations_in, with_base


def test_bases_come_from_the_outermost_folder_inwards_and_a_gap_ends_them(tmp_path: Path) -> None:
    row, inner = tmp_path / "a" / "b" / "c" / "row.yaml", tmp_path / "a" / "b" / "c" / "base.yaml"
    row.parent.mkdir(parents=True)
    for file in (row, inner, tmp_path / "a" / "b" / "base.yaml", tmp_path / "base.yaml"):
        file.touch()
    assert with_base(row) == (tmp_path / "a" / "b" / "base.yaml", inner, row)
    assert with_base(inner) == (tmp_path / "a" / "b" / "base.yaml", inner)
    assert configurations_in(row.parent) == [row]
    alone = tmp_path / "a" / "other.yaml"
    assert with_base(alone) == (alone,)
