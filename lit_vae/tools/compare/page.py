"""One HTML file that needs nothing else: no network, no other file, no script to be read."""

import base64
import hashlib
import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from lit_vae.tools.compare.charts import Chart, svg
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.markup import Html, element, escape, join
from lit_vae.tools.compare.numbers import format_number
from lit_vae.tools.compare.page_images import reconstructions, run_name, samples
from lit_vae.tools.compare.page_table import numbers
from lit_vae.tools.compare.study import Study


def page(study: Study) -> str:
    """The page as text: a function of the study alone."""
    sections = [
        ("runs", "Runs", _runs(study)),
        ("reconstructions", "Reconstructions", reconstructions(study)),
        ("samples", "Samples", samples(study)),
        ("numbers", "Numbers", numbers(study)),
        ("trade-offs", "Trade-offs", _charts(study, study.scatters)),
        ("curves", "Training curves", _charts(study, study.curves)),
        ("configurations", "Configurations", _configs(study)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, _ in shown]
    body = [
        element("section", element("h2", title, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")
        for name, title, content in shown
    ]
    style, script, content = f"\n{_file('page.css')}", f"\n{_file('page.js')}", join(body)
    return Template(_file("page.html")).substitute(
        policy=_policy([style, *re.findall(r"<style[^>]*>(.*?)</style>", content, re.S)], [script]),
        title=escape(study.name),
        summary=escape(_summary(study)),
        links=join(links),
        body=content,
        command=escape(_command(study)),
        style=style,
        script=script,
    )


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The page's own styles and script by their hashes, images within the page, and nothing from anywhere else.

    Attributes ``style`` cannot have a hash; charts and outlines need them.
    """

    def hashes(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in dict.fromkeys(texts))
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; img-src data:; script-src {hashes(scripts)}; style-src-elem {hashes(styles)};"
        " style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return files("lit_vae.tools.compare").joinpath("templates", name).read_text(encoding="utf-8")


def _summary(study: Study) -> str:
    sets = len([group for group in study.groups if group.errors])
    request = study.request
    images = f"at most {request.num_images} images of the {request.split} split"
    if sets > 1:
        return f"{len(study.entries)} runs on {sets} different sets of images; of each, {images}."
    return f"{len(study.entries)} runs; reconstructions of {images}."


def _command(study: Study) -> str:
    request = study.request
    options = [f"--split {request.split}", f"--num_images {request.num_images}", f"--checkpoint {request.checkpoint}"]
    options.append(f"--seed {request.seed}")
    return " ".join(["lit-vae compare", *map(shlex.quote, request.runs), "--out", shlex.quote(study.name), *options])


def _runs(study: Study) -> Html:
    return element("div", *(_card(study, i, entry) for i, entry in enumerate(study.entries)), class_="cards")


def _card(study: Study, i: int, entry: Entry) -> Html:
    facts = {"Status": entry.status, "Checkpoint": _checkpoint(entry)}
    for title, name in (("Time", "seconds"), ("Parameters", "parameters"), ("Peak memory", "peak_memory_bytes")):
        if number := entry.numbers.get(name):
            facts[title] = number.words or format_number(name, number.value)
    if entry.stage1 is not None and any(number.words for number in entry.numbers.values()):
        facts["Cost"] = "its own + that of stage 1"
    if device := entry.records.run.get("device"):
        ranks = entry.records.run.get("ranks", 1)
        facts["Device"] = device if ranks == 1 else f"{ranks} x {device}"
    facts["Directory"] = str(entry.records.directory)
    terms = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items() if value]
    notes = [element("li", f"{note[0].upper()}{note[1:]}.") for note in entry.notes]
    return element(
        "article",
        element("h3", run_name(study, i), element("span", entry.records.model, class_="family")),
        element("dl", *terms),
        element("ul", *notes, class_="notes") if notes else None,
        class_=f"card {entry.records.run.get('status', 'unknown')}",
    )


def _checkpoint(entry: Entry) -> str:
    if entry.run is None:
        return "no checkpoint"
    return f"{entry.run.checkpoint.name}, SHA-256 {entry.run.identity[:12]}"


def _charts(study: Study, charts: Sequence[Chart]) -> Html | None:
    if not charts:
        return None
    shown = sorted({i for chart in charts for i in chart.points})
    legend = element("p", *(run_name(study, i) for i in shown), class_="legend")
    note = "A chart has the runs whose numbers compare." if len(shown) < len(study.entries) else ""
    figures = [
        element(
            "figure",
            element("div", Html(svg(chart)), role="img", aria_label=chart.words(study.entries)),
            element("figcaption", chart.title),
        )
        for chart in charts
    ]
    return join(
        [legend, element("div", *figures, class_="charts"), element("p", note, class_="small") if note else None]
    )


def _configs(study: Study) -> Html:
    if not study.configs:
        return element("p", "They do not differ.")
    heads = [element("th", run_name(study, i), scope="col") for i in range(len(study.entries))]
    rows = [
        element(
            "tr", element("th", _breakable(key), scope="row"), *(element("td", _breakable(value)) for value in values)
        )
        for key, values in study.configs.items()
    ]
    head = element("thead", element("tr", element("th", "Only what differs", scope="col"), *heads))
    table = element("table", head, element("tbody", *rows), class_="configs")
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Configurations")


def _breakable(key: str) -> Html:
    """Text that a line may break at its dots and underscores."""
    return Html(str(escape(key)).replace(".", ".<wbr>").replace("_", "_<wbr>"))
