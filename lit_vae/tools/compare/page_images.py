"""The part of the page that is looked at: reconstructions beside the originals, and samples."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lit_vae.tools.compare.charts import style
from lit_vae.tools.compare.comparable import image_differences
from lit_vae.tools.compare.markup import Html, data_uri, element, join
from lit_vae.tools.compare.pictures import NUM_SAMPLES, Crop, Group, psnr
from lit_vae.tools.compare.sheets import coloured, png, to_picture
from lit_vae.tools.compare.study import Study

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 128  # pixels of an image that is shown as squares


def glyph(index: int) -> Html:
    """The mark of a run, as in the charts."""
    colour, _, points = style(index)
    shape = element("polygon", points=points) if points else element("circle", r="4.5")
    return element("svg", shape, class_="glyph", viewBox="-6 -6 12 12", fill=colour, aria_hidden="true")


def run_name(study: Study, index: int) -> Html:
    """Mark and label of a run."""
    return element("span", glyph(index), study.entries[index].label, class_="run")


def reconstructions(study: Study) -> Html:
    """A table for each set of images that runs were shown: images in rows, runs in columns."""
    groups = [group for group in study.groups if group.errors]
    if not groups:
        return element("p", "No run has reconstructions.")
    tables = [_group(study, group, index) for index, group in enumerate(groups)]
    seen = {i for group in groups for i in group.members}
    unseen = [i for i in range(len(study.entries)) if i not in seen]
    why = [
        element("p", run_name(study, i), f" is not shown: {study.pictures[i].no_reconstructions}.", class_="missing")
        for i in unseen
    ]
    return join([_toggles(), *tables, *why])


def samples(study: Study) -> Html:
    """A sheet of samples for each run."""
    from callbacks.drawing import arrange, sheet

    figures = []
    for i, (entry, picture) in enumerate(zip(study.entries, study.pictures, strict=True)):
        if picture.samples is None:
            shown = element("p", f"No samples: {picture.no_samples}.", class_="missing")
            caption = ""
        else:
            address = data_uri(png(sheet(arrange(picture.samples, 4))))
            alt = f"{NUM_SAMPLES} samples of {entry.label}"
            shown = _button("samples", 0, i, alt, element("img", src=address, alt=alt))
            caption = picture.drawn
        caption_element = element("figcaption", run_name(study, i))
        figures.append(element("figure", caption_element, shown, element("p", caption, class_="small")))
    return element("div", *figures, class_="samples")


def _group(study: Study, group: Group, index: int) -> Html:
    table_id = f"images-{index}"
    heads = [element("th", "Original", scope="col", class_="original")]
    heads += [element("th", run_name(study, i), scope="col") for i in group.members]
    bodies = [_image_rows(study, group, table_id, n) for n in range(len(group.x))]
    head = element("thead", element("tr", element("th", element("span", "Image", class_="hidden")), *heads))
    table = element("table", head, *bodies, class_="images", id=table_id)
    region = element(
        "div", table, class_="scroll", tabindex=0, role="region", style=f"--columns: {len(group.members) + 1}",
        aria_label="Reconstructions, " + ", ".join(study.entries[i].label for i in group.members),
    )  # fmt: skip
    return join([_why_apart(study, group, index), _scale(group), region])


def _image_rows(study: Study, group: Group, table: str, n: int) -> Html:
    """The image, its crop and its errors, of the original and of each run."""
    crop = group.crops[n]
    entries, pictures = study.entries, study.pictures

    def row(kind: str, cell: Callable[[int], Html], original: Html) -> Html:
        head = element("th", str(n + 1) if kind == "image" else kind, scope="row")
        return element("tr", head, original, *(cell(i) for i in group.members), class_=kind)

    def missing(i: int) -> Html:
        return element("td", element("span", f"{pictures[i].no_reconstructions}", class_="missing"))

    def image(i: int) -> Html:
        x, x_hat = pictures[i].x, pictures[i].x_hat
        if x is None or x_hat is None:
            return missing(i)
        decibel = f"{psnr(x[n : n + 1], x_hat[n : n + 1])[0]:.2f} dB"
        alt = f"Image {n + 1} reconstructed by {entries[i].label}, PSNR {decibel}"
        return _cell(table, 3 * n, i + 1, alt, x_hat[n], element("span", decibel, class_="small"))

    def magnified(i: int) -> Html:
        x_hat = pictures[i].x_hat
        if x_hat is None:
            return element("td")
        return _cell(table, 3 * n + 1, i + 1, f"Crop of image {n + 1} by {entries[i].label}", crop.of(x_hat[n]))

    def error(i: int) -> Html:
        if i not in group.errors:
            return element("td")
        worst = f"at most {float(group.errors[i][n].max()):.0f} levels"
        alt = f"Errors of {entries[i].label} in image {n + 1}, {worst}"
        return _cell(table, 3 * n + 2, i + 1, alt, coloured(group.errors[i][n], group.most_error))

    x = group.x[n]
    original = _cell(table, 3 * n, 0, f"Image {n + 1}, the original", x, outline=crop)
    of_crop = _cell(table, 3 * n + 1, 0, f"Crop of image {n + 1}, the original", crop.of(x))
    rows = [row("image", image, original), row("crop", magnified, of_crop), row("error", error, element("td"))]
    return element("tbody", *rows)


def _cell(
    table: str, row: int, column: int, alt: str, x: "Tensor", below: Html | None = None, outline: Crop | None = None
) -> Html:
    pixelated = "pixelated" if max(x.shape[-2:]) < _SMALL else None
    image = element("img", src=data_uri(png(to_picture(x))), alt=alt, class_=pixelated, loading="lazy")
    mark = None if outline is None else _outline(outline, x.shape[-2], x.shape[-1])
    return element("td", _button(table, row, column, alt, image, mark), below, class_=None if column else "original")


def _button(group: str, row: int, column: int, alt: str, image: Html, mark: Html | None = None) -> Html:
    return element(
        "button", image, mark, type="button", class_="zoom", data_group=group, data_row=row, data_column=column,
        aria_label=f"{alt}. Enlarge",
    )  # fmt: skip


def _outline(crop: Crop, height: int, width: int) -> Html:
    """The place of the crop in the original."""
    box = {
        "left": crop.left / width,
        "top": crop.top / height,
        "width": crop.side / width,
        "height": crop.side / height,
    }
    return element("span", class_="outline", style=";".join(f"{k}:{100 * v:.3f}%" for k, v in box.items()))


def _toggles() -> Html:
    boxes = [
        element("label", element("input", type="checkbox", id=f"show-{kind}", checked=True), f" {words}")
        for kind, words in (("crop", "Magnified crops"), ("error", "Error maps"))
    ]
    hint = element("span", "Select an image to enlarge it; arrow keys go from run to run.", class_="small needs-script")
    return element("p", *boxes, hint, class_="toggles")


def _scale(group: Group) -> Html:
    bar = element("span", class_="bar", role="img", aria_label="black, purple, orange, light yellow")
    text = (
        f"{group.most_error:.0f} of 255 levels: the error of a pixel, averaged over channels, on one scale for all runs"
    )
    return element("p", "Error 0 ", bar, f" {text}", class_="scale small")


def _why_apart(study: Study, group: Group, index: int) -> Html | None:
    """What keeps runs in a table of their own from standing in the first."""
    if not index:
        return None
    mine, first = (study.entries[g.members[0]] for g in (group, study.groups[0]))
    names = ", ".join(study.entries[i].label for i in group.members)
    why = "; ".join(image_differences(mine, first, index, 0))
    return element("p", f"Not on the same images as {first.label}: {names} ({why}).", class_="apart")
