"""The command line ``lit-vae``. Each package beside this file is a group of verbs, which its ``__init__`` names.

Importing this module, as ``lit-vae --help`` does, is fast: the verbs import torch and lightning when they run.
"""

import difflib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from lit_vae.run.offline import keep_others_offline
from lit_vae.run.settings import with_home
from lit_vae.run.trust import VARIABLE, forget_classes
from lit_vae.run.yaml_files import refuse_special_files
from lit_vae.tools import cluster, compare, exchange, measure, pictures, prepare, priors, study, upload

VERBS: dict[str, Callable[..., None]] = {
    "sample": pictures.sample,
    "reconstruct": pictures.reconstruct,
    "interpolate": pictures.interpolate,
    "traverse": pictures.traverse,
    "encode": priors.encode,
    "fit-prior": priors.fit_prior,
    "evaluate": measure.evaluate,
    "table": compare.table,
    "study": study.study,
    "submit": cluster.submit,
    "sync": upload.sync,
    "compare": compare.compare,
    "latents": measure.latents,
    "prepare": prepare.prepare,
    "export": exchange.export,
    "import": exchange.import_autoencoder,
}
SEVERAL = {
    "table": ("runs", "RUN", "Run directories."),
    "compare": ("runs", "RUN", "Run directories or .ckpt files; also RUN@gmm (flow, vamp, vae) and RUN@drawn."),
    "sync": ("runs", "RUN", "Run directories, or folders above them."),
    "prepare": (
        "what",
        "WHAT",
        "Configurations (.yaml), folders of them, or weights: vgg16, alexnet, inception.",
    ),
}
"""By verb, the argument that is given any number of times: name, placeholder, help."""
REPEATED = {
    "study": {
        "config": ("OVERLAY", "Overlay for each of them, such as configs/overlays/bf16.yaml. May be given again."),
        "only": ("NAME", "Train and test this one of them. May be given again. Default: all."),
    },
    "prepare": {"config": ("OVERLAY", "Overlay for each configuration. May be given again.")},
    "submit": {"config": ("OVERLAY", "Overlay, such as configs/overlays/bf16.yaml. May be given again.")},
}
"""By verb, the options that are given any number of times: placeholder, help."""
READS_NO_CHECKPOINT = ("table", "sync", "import")
TRUST = (
    "Package or class that checkpoints may name, beside those of lit_vae, torch.nn and torch.optim. May be given again."
)


class Parser(ArgumentParser):
    """A parser whose errors are short and suggest the nearest option or verb."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with exit code 2."""
        message = _plainly(message)
        unknown = re.search(r"unrecognized arguments: (--\w+)", message)
        options = re.findall(r"--\w+", self.format_help())
        if unknown and (near := difflib.get_close_matches(unknown.group(1), options, n=1)):
            message += f"\nDid you mean {near[0]} instead of {unknown.group(1)}?"
        print(f"error: {message}\nSee {self.prog.replace(' [options]', '')} --help.", file=sys.stderr)
        sys.exit(2)


def _plainly(message: str) -> str:
    """The message of jsonargparse, in the words of the command line."""
    value = re.search(
        r'Parser key "(\w+)":.*?Expected an? (?:<class \')?([^\n>]+?)\'?>?(?:\n|\. Got).*value: (.*)', message, re.S
    )
    if value:
        return f"--{value.group(1)}: expected {value.group(2).replace('typing.', '')}, not {value.group(3)}"
    if message.startswith('expected "verb"'):
        return f"what is to be done? Give one of {', '.join(VERBS)}."
    return re.sub(r"(?<=required: )[\w-]+\.", "", message)


def _parser() -> Parser:
    parser = Parser(
        prog="lit-vae",
        description="What is done with runs of `lightning fit`: pictures, priors, measurements, comparisons.",
    )
    subcommands = parser.add_subcommands(dest="verb")
    for name, function in VERBS.items():
        sub = Parser(description=(function.__doc__ or "").split("\n    Args:")[0])
        skip: set[str | int] = set()
        if name in SEVERAL:
            argument, placeholder, explanation = SEVERAL[name]
            sub.add_argument(argument, nargs="+", metavar=placeholder, help=explanation)
            skip = {argument}
        for option, (placeholder, explanation) in REPEATED.get(name, {}).items():
            sub.add_argument(f"--{option}", action="append", type=str, metavar=placeholder, help=explanation)
            skip |= {option}
        if name not in READS_NO_CHECKPOINT:
            sub.add_argument("--trust", action="append", type=str, metavar="PACKAGE", help=TRUST)
        sub.add_function_arguments(function, as_group=False, as_positional=True, skip=skip)
        subcommands.add_subcommand(name, sub, help=(function.__doc__ or "").partition("\n")[0])
    return parser


@contextmanager
def _trusting(packages: Sequence[str]) -> Iterator[None]:
    """Trust these packages too, here and in the processes that a verb starts (`lit_vae.run.trust`)."""
    forget_classes()
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = ",".join([*([before] if before else []), *packages])
    try:
        yield
    finally:
        os.environ[VARIABLE] = before or ""


def main() -> None:
    """Entry point of ``lit-vae``. A user's mistake is one message and exit code 1 or 2, without a traceback."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")  # within Lightning; no user can mend it
    try:
        refuse_special_files(sys.argv[1:])
        given: Namespace = _parser().parse_args()
        arguments = given[given.verb].as_dict()
        keep_others_offline()
        with _trusting(arguments.pop("trust", None) or []):
            VERBS[given.verb](**with_home(arguments))
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_VAE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interruption:
        print(": ".join(["interrupted", *map(str, interruption.args)]), file=sys.stderr)
        sys.exit(130)
