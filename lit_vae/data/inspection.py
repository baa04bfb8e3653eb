"""Checks every image file before training: which files are skipped, and what is unusual about the others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lit_vae.data.decode import Decoder, Samples
from lit_vae.data.folders import LeftOut, Walk
from lit_vae.data.formats import UNREAD_FORMAT, is_image_name, is_unread_name
from lit_vae.data.opened import Opened, Unreadable, allow_large_images, opened
from lit_vae.data.pictures import Geometry
from lit_vae.run.threads import cores
from lit_vae.run.weights import some

MAX_CUT = 0.8
"""The share of a picture that the crop may remove without a note."""
MAX_ENLARGED = 4.0
"""How many times the shorter side may be enlarged without a note."""

_NAMED = 3
_JPEG_END = b"\xff\xd9"
_PADDING = b"\0\r\n "
_DARK = 4096.0  # of 65535: as high as 12 bits go

_SENTENCES = {
    "frames": "have several frames or pages, of which the first is read",
    "limit": "are larger than PIL.Image.MAX_IMAGE_PIXELS, and are read all the same",
    "cut": f"lose more than {MAX_CUT:.0%} to the square crop (data.init_args.crop: none squeezes them instead)",
    "squeezed": f"are squeezed more than {1 / (1 - MAX_CUT):.0f} times into the square (data.init_args.crop: center)",
    "enlarged": f"are enlarged more than {MAX_ENLARGED:g} times (data.init_args.size)",
    "clipped": "have values outside of data.init_args.value_range; they are clipped",
    "dark": "have 16 bits and no value above 4095: if they use 12 bits, set data.init_args.value_range: [0, 4095]",
    "linked": "are other names of a file, which is counted once",
}


@dataclass
class Report:
    """The result of checking files: those that are read and those that are skipped.

    ``notes`` has the unusual images among the former, by kind, each with a detail.
    """

    whole: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, list[tuple[Path, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, walk: Walk) -> None:
        """Add the files that the search for files skipped or found again."""
        self.left_out += walk.left_out
        if walk.linked:
            self.notes["linked"] = [(path, "") for path in walk.linked]

    def skipped(self, root: Path) -> str:
        """The number of skipped files of each kind, with the first three names; empty if there are none."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for path, kind, _ in self.left_out:
            kinds[kind].append(str(path.relative_to(root)))
        return "; ".join(f"{len(paths)} {kind}: {some(paths, _NAMED)}" for kind, paths in kinds.items())

    def sentences(self, root: Path) -> Iterator[str]:
        """A sentence about each kind of note."""
        for kind, files in self.notes.items():
            words = [f"{path.relative_to(root)}{f' ({word})' if word else ''}" for path, word in files]
            yield f"{len(files)} files {_SENTENCES[kind]}: {some(words, _NAMED)}."

    def lines(self, root: Path) -> list[str]:
        """A line for each file that is skipped or noted, with the reason, for a file in the run directory."""
        left = [f"skipped\t{path.relative_to(root)}\t{kind}\t{reason}" for path, kind, reason in self.left_out]
        noted = [
            f"read\t{path.relative_to(root)}\t{_SENTENCES[kind]}\t{word}"
            for kind, files in self.notes.items()
            for path, word in files
        ]
        return [*left, *noted]


def inspect(files: Iterable[Path], decoder: Decoder, geometry: Geometry) -> Report:
    """Check files, on all cores. A JPEG needs only its end marker; other images are decoded.

    Raises:
        Refused: a setting is missing that says how to read a file.
    """
    report, files = Report(), list(files)
    named = [path for path in files if is_image_name(path)]
    with allow_large_images(), ThreadPoolExecutor(cores().number) as pool:
        for path, found in zip(named, pool.map(lambda path: _look(path, decoder, geometry), named), strict=True):
            if isinstance(found, Unreadable):
                report.left_out.append(LeftOut(path, found.kind, found.reason))
                continue
            report.whole.append(path)
            for kind, word in found.items():
                report.notes[kind].append((path, word))
    unread = [path for path in files if is_unread_name(path)]
    others = sorted(set(files) - set(named) - set(unread))
    report.left_out += [LeftOut(path, UNREAD_FORMAT, "convert it to JPEG or PNG") for path in unread]
    report.left_out += [LeftOut(path, "not an image", "by its name") for path in others]
    return report


def _look(path: Path, decoder: Decoder, geometry: Geometry) -> dict[str, str] | Unreadable:
    """Notes about an image by kind, or why it cannot be read."""
    try:
        with opened(path) as file:
            notes = dict(_of_shape(file.image, geometry))
            if file.image.format == "JPEG" and path.read_bytes().rstrip(_PADDING).endswith(_JPEG_END):
                return notes
            samples = decoder.samples(file)
            return notes | dict(_of_values(file, samples)) if samples is not None else notes
    except Unreadable as error:
        return error


def _of_shape(image: Any, geometry: Geometry) -> Iterator[tuple[str, str]]:
    if getattr(image, "is_animated", False):
        yield "frames", f"{image.n_frames} frames"
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        yield "limit", f"{image.width} x {image.height}"
    if (cut := geometry.cut(*image.size)) > MAX_CUT:
        yield "cut", f"{100 * cut:.0f} %"
    if (squeezed := geometry.squeezed(*image.size)) > 1 / (1 - MAX_CUT):
        yield "squeezed", f"{squeezed:.0f} times"
    if (enlarged := geometry.enlarged(*image.size)) > MAX_ENLARGED:
        yield "enlarged", f"{enlarged:.0f} times"


def _of_values(file: Opened, samples: Samples) -> Iterator[tuple[str, str]]:
    least, most = float(samples.values.min()), float(samples.values.max())
    low, high = sorted((samples.low, samples.high))
    if not samples.from_file and (least < low or most > high):
        yield "clipped", f"{least:g} to {most:g}"
    if samples.from_file and not file.is_scaled and high == 65535.0 and 0.0 < most < _DARK:
        yield "dark", f"{least:g} to {most:g}"
