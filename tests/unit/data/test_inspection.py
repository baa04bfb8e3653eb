"""What is said of image files: what is left out and why, and what few expect of the rest."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_image
from image_files import write_png
from PIL import Image

from lit_vae.data.decode import Decoder
from lit_vae.data.inspection import Report, inspect
from lit_vae.data.opened import Refused
from lit_vae.data.pictures import Geometry


def look(folder: Path, geometry: Geometry = Geometry(32), **options: object) -> Report:  # noqa: B008
    return inspect(sorted(folder.iterdir()), Decoder(3, **options), geometry)  # type: ignore[arg-type]


def test_each_kind_that_is_left_out_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "good.png", 1)
    heif = b"\0\0\0\x18ftypheic" + bytes(30)
    kinds = {
        "corrupt": {"cut.png": (tmp_path / "good.png").read_bytes()[:60], "text.png": b"text", "empty.jpg": b""},
        "of a format that lit_vae does not read": {
            **dict.fromkeys(("a.heic", "b.HEIF", "phone.jpg"), heif),
            **dict.fromkeys(("c.nef", "d.CR2", "e.cr3", "f.ARW", "g.dng", "h.eps", "i.mpg", "j.h5"), b"raw"),
        },
        "not an image": {"notes.txt": b"notes", "noname": b""},
    }
    for files in kinds.values():
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
    Image.new("L", (60, 60)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30)
    report = look(tmp_path)
    assert [path.name for path in report.whole] == ["good.png"]
    found = {kind: {p.name for p, k, _ in report.left_out if k == kind} for _, kind, _ in report.left_out}
    expected = {kind: set(files) for kind, files in kinds.items()}
    assert found == {**expected, "above Pillow's size limit": {"huge.png"}}
    lines = report.lines(tmp_path)
    assert len(lines) == 17
    assert all(line.split("\t")[0] == "skipped" and all(line.split("\t")) for line in lines)
    assert (
        "skipped\tphone.jpg\tof a format that lit_vae does not read\tHEIF under another name; convert it to JPEG or PNG"
        in lines
    )


def test_pictures_of_a_strange_shape_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "wide.png", 1, 2000, 40)
    write_image(tmp_path / "small.png", 1, 3, 5)
    write_image(tmp_path / "usual.png", 1, 160, 90)
    write_image(tmp_path / "panorama.jpg", 1, 160, 32)
    notes = {kind: [(path.name, word) for path, word in files] for kind, files in look(tmp_path).notes.items()}
    assert notes == {"enlarged": [("small.png", "11 times")], "cut": [("wide.png", "98 %")]}
    notes = look(tmp_path, Geometry(32, "none")).notes
    assert [(path.name, word) for path, word in notes["squeezed"]] == [("wide.png", "50 times")]
    assert set(look(tmp_path, Geometry(32, "random")).notes) == {"enlarged"}
    assert not look(tmp_path, Geometry(3, resize=12)).notes.get("enlarged")
    said = " ".join(look(tmp_path).sentences(tmp_path))
    assert "1 files lose more than 80% to the square crop" in said
    assert "wide.png (98 %)" in said
    assert "1 files are enlarged more than 4 times (data.init_args.size): small.png (11 times)." in said


def test_frames_are_said_once(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green")]
    for name in ("a.gif", "b.tif", "c.png", "d.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    report = look(tmp_path)
    assert [word for _, word in report.notes["frames"]] == ["3 frames"] * 4
    said = [
        "4 files have several frames or pages, of which the first is read: " + "a.gif (3 frames), b.tif (3 frames),"
    ]
    assert [text[: len(said[0])] for text in report.sentences(tmp_path)] == said


def test_an_image_above_the_limit_of_pillows_warning_is_read_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "large.png", 1, 40, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # warnings are errors in these tests
    report = look(tmp_path)
    assert [path.name for path in report.whole] == ["large.png"]
    assert [word for _, word in report.notes["limit"]] == ["40 x 30"]


def test_values_that_the_range_does_not_fit_are_named(tmp_path: Path) -> None:
    ramp = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    write_png(tmp_path / "dark.png", ramp, 16, 0)
    write_png(tmp_path / "full.png", ramp * 40, 16, 0)
    assert [(path.name, word) for path, word in look(tmp_path).notes["dark"]] == [("dark.png", "0 to 1599")]
    notes = look(tmp_path, value_range=(0.0, 4095.0)).notes
    assert {kind: [(path.name, word) for path, word in files] for kind, files in notes.items()} == {
        "clipped": [("full.png", "0 to 63960")]
    }


def test_a_range_that_is_missing_ends_the_reading(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(Refused, match=r"f\.tif contains floats .*data\.init_args\.value_range"):
        look(tmp_path)
