"""``python -m benchmarks [section ...] [--write]``: measures here and now, and prints a Markdown table.

About half an hour on two cores of which nobody else wants one. ``--device cuda`` measures on a GPU, where only the
ratios of the feed have a target. Some sections compare with packages of ``pip install -e '.[bench]'``.
"""

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTIONS = (
    "step",
    "feed",
    "precision",
    "quantizer",
    "sampling",
    "lpips",
    "ldm",
    "denoisers",
    "hierarchy",
    "adversarial",
    "fid",
    "ranks",
    "scaling",
)

HEAD = """\
# Measured speed

Made by `python -m benchmarks [section ...] --write`: medians of interleaved rounds, and medians of the ratios within a
round. A section was measured in one go, on the machine that stands above its table.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more than one wants an idle machine")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works: numbers mean nothing")
    parser.add_argument(
        "--write", action="store_true", help=f"write these sections into {RESULTS.parent.name}/{RESULTS.name}"
    )
    options = parser.parse_args(args)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}. Take of {', '.join(SECTIONS)}.")
    if options.write and options.quick:
        parser.error("--write keeps serious measurements: leave --quick out.")

    # before torch starts its threads: spinning ones slow small operations a hundredfold beside a busy neighbour
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler that measures memory tells of its stages otherwise
    import torch

    from benchmarks.timing import HEADER, Environment

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for name in SECTIONS:
        if options.sections and name not in options.sections:
            continue
        environment = Environment(device)
        section = importlib.import_module(f"benchmarks.{name}")
        rows = section.run(device, options.quick)
        table = [HEADER, *(row.markdown() for row in rows)]
        text = "\n".join([*environment.lines(timed=getattr(section, "TIMED", True)), "", *table])
        print(f"## {name}\n\n{text}\n", flush=True)
        if options.write:
            before = RESULTS.read_text() if RESULTS.exists() else ""
            RESULTS.write_text(with_section(before, name, text))


def with_section(results: str, name: str, text: str) -> str:
    """The text of all results with one section put in, or in place of what it was."""
    sections = dict(part.partition("\n\n")[::2] for part in results.split("\n## ")[1:])
    sections[name] = text
    parts = [f"## {known}\n\n{sections[known].strip()}\n" for known in SECTIONS if known in sections]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    main()
