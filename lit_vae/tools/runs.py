"""Find, load and check what the user names: a run directory or checkpoint, its model, its data, a label."""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from lit_vae.data import ImageDataModule
    from lit_vae.images import Batch
    from lit_vae.models.base import Autoencoder
    from lit_vae.models.module import Model

Checkpoint = Literal["best", "last"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

MOST_BYTES = 2**32
"""A limit for the images of one sheet."""
_MOST = 2**63


@dataclass(frozen=True)
class Run:
    """A checkpoint and the run directory that it belongs to; ``given`` is what the user typed."""

    given: str
    directory: Path
    checkpoint: Path

    @property
    def identity(self) -> str:
        """SHA-256 of the checkpoint file. A mixture or codes made from this file are used with no other."""
        from lit_vae.run.loading import identity

        return identity(self.checkpoint)


def find_run(given: str, checkpoint: Checkpoint) -> Run:
    """A run directory's best or last checkpoint, or a .ckpt file and the run directory around it.

    Raises:
        ValueError: there is no such run or checkpoint.
    """
    path = Path(given)
    if path.is_file():
        return Run(given, path.parent.parent if path.parent.name == "checkpoints" else path.parent, path)
    if not path.is_dir():
        raise ValueError(f"there is no run {given}. Give a run directory, or a .ckpt file.")
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if not file.is_file():
        there = ", ".join(name for name in ("best", "last") if file.with_name(f"{name}.ckpt").is_file())
        remedy = f"There is: {there}; give it with --checkpoint." if there else "Is it a run directory?"
        raise ValueError(f"{given}: there is no checkpoint {file}. {remedy}")
    return Run(given, path, file)


def choose_device(device: str | None) -> "torch.device":
    """The device of that name. Default: the GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        why = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"--device {device}: {why}. Give cpu, cuda or cuda:N.") from error
    return chosen


def load_model(run: Run, device: "torch.device") -> "Model":
    """See `lit_vae.run.loading.load_model`."""
    from lit_vae.run import loading

    return loading.load_model(run.checkpoint, device)


def load_autoencoder(verb: str, run: Run, device: "torch.device") -> "Autoencoder":
    """The model of a checkpoint, for a verb that needs latents.

    Raises:
        ValueError: the checkpoint cannot be loaded, or its model has no latents.
    """
    return as_autoencoder(verb, run, load_model(run, device))


def as_autoencoder(verb: str, run: Run, model: "Model") -> "Autoencoder":
    """The model of a checkpoint, if it has latents.

    Raises:
        ValueError: it has none.
    """
    from lit_vae.models.base import Autoencoder

    if not isinstance(model, Autoencoder):
        raise ValueError(
            f"lit-vae {verb}: {run.checkpoint} is a {type(model).__name__}, which has no latents. Give a run of an"
            " autoencoder."
        )
    return model


def load_data(run: Run, model: "Model", data_root: str | None, splits: Sequence[Split]) -> "ImageDataModule":
    """The data module that a checkpoint was trained on, for the splits that will be read. Nothing is downloaded.

    ``data_root`` is the folder of the data, instead of the one used in training.

    Raises:
        ValueError: the data is missing, or does not fit the model.
    """
    from lit_vae.data import ImageDataModule
    from lit_vae.run.loading import build, class_in

    data_class = class_in(run.checkpoint, "datamodule_hyper_parameters", ImageDataModule, "data")
    arguments = {}
    if data_root is not None:
        if "root" not in inspect.signature(data_class.__init__).parameters:
            raise ValueError(f"--data_root {data_root}: {data_class.__name__} is read from no folder. Leave it out.")
        arguments = {"root": data_root}
    data = build(run.checkpoint, data_class, arguments)
    try:
        problems = model.problems(data.spec)
        for split in splits:
            data.source(split)
    except FileNotFoundError as error:
        raise ValueError(f"{error}\nIf it is somewhere else: --data_root DIR.") from error
    if problems:
        raise ValueError("\n".join(problems))
    return data


class OneSplit:
    """A data module that gives one split for all. Panels ask for validation images; this lets them draw others."""

    def __init__(self, data: "ImageDataModule", split: Split) -> None:
        self.data, self.split = data, split

    def example_batch(self, n: int, split: Split = "val") -> "Batch":
        """``n`` images, or all if there are fewer."""
        return self.data.example_batch(n, self.split)

    def example_dataloader(self, n: int, split: Split = "val") -> Any:
        """The same images in batches."""
        return self.data.example_dataloader(n, self.split)


def check_arguments(verb: str, least: Mapping[str, tuple[float | list[float] | None, float]]) -> None:
    """Check that options are not below their minimum, ``name: (value or values, minimum)``; None passes.

    Raises:
        ValueError: some are too small, too large or not finite; it names all of them.
    """
    wrong = []
    for name, (values, low) in least.items():
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not low <= value < math.inf:
                wrong.append(f"lit-vae {verb}: --{name} (={value:g}) must be at least {low:g}.")
            elif value is not None and value >= _MOST:
                wrong.append(f"lit-vae {verb}: --{name} (={value}) must be less than 2^63.")
    if wrong:
        raise ValueError("\n".join(wrong))


def check_memory(verb: str, asked: str, count: int, shape: Sequence[int]) -> None:
    """Check that ``count`` float32 arrays of a shape fit into memory together, before they are made.

    ``asked`` are the options as the user typed them.

    Raises:
        ValueError: they need more than `MOST_BYTES`.
    """
    needed = 4 * count * math.prod(shape)
    if needed > MOST_BYTES:
        raise ValueError(
            f"lit-vae {verb}: {asked} needs {needed:,} bytes for {count:,} x {list(shape)} numbers, and at most"
            f" {MOST_BYTES:,} are used. Give less."
        )


def find_label(model: "Model", label: str | None) -> int | None:
    """The number of the class that the user names; None if the user names none.

    Raises:
        ValueError: the model has no such class.
    """
    if label is None:
        return None
    if model.num_classes == 0:
        raise ValueError(
            f"lit-vae sample: --label {label}: {type(model).__name__} is not told labels. Leave --label out, or give a"
            " run of a class-conditional model."
        )
    names = [model.class_name(number) for number in range(model.num_classes)]
    if label in names:
        return names.index(label)
    if model.class_names:
        near = difflib.get_close_matches(label, names, n=1)
        raise ValueError(
            f"lit-vae sample: --label {label} is no class of the model.{f' Did you mean {near[0]!r}?' if near else ''}"
            f" Its classes: {', '.join(names)}."
        )
    raise ValueError(
        f"lit-vae sample: --label {label} must be between 0 and {model.num_classes - 1}: the model has"
        f" {model.num_classes} classes."
    )
