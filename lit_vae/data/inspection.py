"""A look at every image file before the first is read: what is left out, and what few expect of the rest."""

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
from lit_vae.data.opened import NotRead, Opened, above_limit_too, opened
from lit_vae.data.pictures import Geometry
from lit_vae.run.threads import cores

MOST_CUT = 0.8
"""Of a picture, before it is said."""
MOST_ENLARGED = 4.0
"""Times, along the shorter side, before it is said."""

_NAMED = 3
_JPEG_END = b"\xff\xd9"
_PADDING = b"\0\r\n "
_DARK = 4096.0  # of 65535: as high as 12 bits go

_SAID = {
    "frames": "hold several frames or pages, of which the first is read",
    "limit": "are above PIL.Image.MAX_IMAGE_PIXELS, and read all the same",
    "cut": f"lose more than {MOST_CUT:.0%} to the crop, since they are no squares (data.init_args.crop: none squeezes)",
    "squeezed": f"are squeezed more than {1 / (1 - MOST_CUT):.0f} times into the square (data.init_args.crop: center)",
    "enlarged": f"are enlarged more than {MOST_ENLARGED:g} times (data.init_args.size)",
    "clipped": "have values outside of data.init_args.value_range, which are clipped",
    "dark": "have 16 bits and no value above 4095: if they hold 12 bits, set data.init_args.value_range: [0, 4095]",
    "linked": "are found already by another name, and counted once",
}


@dataclass
class Report:
    """What was found in files.

    Args:
        whole: images that are read.
        left_out: files that are not.
        notes: by kind, files that are read, each with a word about it.
    """

    whole: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, list[tuple[Path, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, walk: Walk) -> None:
        """Add what was found while looking for files."""
        self.left_out += walk.left_out
        if walk.linked:
            self.notes["linked"] = [(path, "") for path in walk.linked]

    def skipped(self, root: Path) -> str:
        """How many files of which kind are left out, and the names of the first three; empty if none is."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for path, kind, _ in self.left_out:
            kinds[kind].append(str(path.relative_to(root)))
        return "; ".join(f"{len(paths)} {kind}: {some(paths)}" for kind, paths in kinds.items())

    def said(self, root: Path) -> Iterator[str]:
        """A sentence about each kind of note."""
        for kind, files in self.notes.items():
            words = [f"{path.relative_to(root)}{f' ({word})' if word else ''}" for path, word in files]
            yield f"{len(files)} files {_SAID[kind]}: {some(words)}."

    def lines(self, root: Path) -> list[str]:
        """Every file that is left out or noted, with the reason: columns for a file in the run directory."""
        left = [f"skipped\t{path.relative_to(root)}\t{kind}\t{reason}" for path, kind, reason in self.left_out]
        noted = [
            f"read\t{path.relative_to(root)}\t{_SAID[kind]}\t{word}"
            for kind, files in self.notes.items()
            for path, word in files
        ]
        return [*left, *noted]


def inspect(files: Iterable[Path], decoder: Decoder, geometry: Geometry) -> Report:
    """Look at files, on all cores; a JPEG that ends as one should is believed, everything else is decoded.

    Raises:
        Refused: a file can be read only if more is said.
    """
    report, files = Report(), list(files)
    named = [path for path in files if is_image_name(path)]
    with above_limit_too(), ThreadPoolExecutor(cores().number) as pool:
        for path, found in zip(named, pool.map(lambda path: _look(path, decoder, geometry), named), strict=True):
            if isinstance(found, NotRead):
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


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _look(path: Path, decoder: Decoder, geometry: Geometry) -> dict[str, str] | NotRead:
    """Notes of an image by kind, or why it is none."""
    try:
        with opened(path) as file:
            notes = dict(_of_shape(file.image, geometry))
            if file.image.format == "JPEG" and path.read_bytes().rstrip(_PADDING).endswith(_JPEG_END):
                return notes
            samples = decoder.samples(file)
            return notes | dict(_of_values(file, samples)) if samples is not None else notes
    except NotRead as error:
        return error


def _of_shape(image: Any, geometry: Geometry) -> Iterator[tuple[str, str]]:
    if getattr(image, "is_animated", False):
        yield "frames", f"{image.n_frames} frames"
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        yield "limit", f"{image.width} x {image.height}"
    if (cut := geometry.cut(*image.size)) > MOST_CUT:
        yield "cut", f"{100 * cut:.0f} %"
    if (squeezed := geometry.squeezed(*image.size)) > 1 / (1 - MOST_CUT):
        yield "squeezed", f"{squeezed:.0f} times"
    if (enlarged := geometry.enlarged(*image.size)) > MOST_ENLARGED:
        yield "enlarged", f"{enlarged:.0f} times"


def _of_values(file: Opened, samples: Samples) -> Iterator[tuple[str, str]]:
    least, most = float(samples.values.min()), float(samples.values.max())
    low, high = sorted((samples.low, samples.high))
    if not samples.from_file and (least < low or most > high):
        yield "clipped", f"{least:g} to {most:g}"
    if samples.from_file and not file.is_scaled and high == 65535.0 and 0.0 < most < _DARK:
        yield "dark", f"{least:g} to {most:g}"
