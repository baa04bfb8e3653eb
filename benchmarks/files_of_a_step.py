"""Print the files of the package that a training step enters from its batch to its loss.

``python -m benchmarks.files_of_a_step [CONFIG ...]``: a profiler watches the third step inside a trainer. The files
stand in the order of their first use, networks included, below how often control moves from one file to another.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(ROOT / "lit_vae") + os.sep
SHOWN = ("vae/digits.yaml", "vqvae/digits.yaml", "kl_autoencoder/digits.yaml")


@contextmanager
def watched() -> Iterator[list[str]]:
    """The files of the package that are entered, one for each move."""
    moves: list[str] = []

    outside = sys._getframe(3)

    def profile(frame: FrameType | None, event: str, _: Any) -> None:
        if event not in ("call", "return") or not frame or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if event == "return":  # back to the nearest file of the package
            frame = frame.f_back
            while frame not in (outside, None) and not frame.f_code.co_filename.startswith(PACKAGE):
                frame = frame.f_back
        if frame in (outside, None):
            return
        file = frame.f_code.co_filename.removeprefix(PACKAGE)
        if not moves or moves[-1] != file:
            moves.append(file)

    sys.setprofile(profile)
    try:
        yield moves
    finally:
        sys.setprofile(None)


def files(config: Path) -> list[str]:
    """The moves of one training step of a configuration, inside a trainer."""
    from lit_vae.cli import main as command
    from lit_vae.models.module import Model

    found: list[list[str]] = []

    def watch(step: Any) -> Any:
        def training_step(self: Any, *args: Any) -> Any:
            with watched() as moves:
                loss = step(self, *args)
            found.append(moves)
            return loss

        return training_step

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["lightning", "fit", "--config", str(config), "--run_dir", folder + "/run"]
        sys.argv += ["--trainer.max_steps=3", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=2"]
        original = {}
        for kind in _subclasses(Model):
            if "training_step" in vars(kind):
                original[kind] = vars(kind)["training_step"]
                kind.training_step = watch(original[kind])
        try:
            command()
        finally:
            for kind, step in original.items():
                kind.training_step = step
    return found[-1]


def _subclasses(kind: type) -> list[Any]:
    return [kind, *(found for below in kind.__subclasses__() for found in _subclasses(below))]


def main() -> None:
    os.environ["WANDB_MODE"] = "disabled"
    import lit_vae.models  # noqa: F401

    for name in sys.argv[1:] or SHOWN:
        moves = files(ROOT / "configs" / name)
        entered = list(dict.fromkeys(moves))
        print(f"\n{name}: {len(entered)} files, {len(moves) - 1} moves")
        print("\n".join(f"  {file}" for file in entered))


if __name__ == "__main__":
    main()
