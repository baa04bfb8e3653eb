"""Compare the trainings of two checkouts bit by bit: ``python -m benchmarks.nothing_moved BEFORE AFTER``.

Every configuration trains for 20 steps (the largest: 3) on made-up images, in each checkout by its own code. Compared
are all weights and buffers, the optimizer's state and every cell of ``metrics.csv``. What has another name in one of
them is compared by what it holds.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

Found = dict[str, dict[str, str]]
TIMES = "time"  # a column of metrics.csv that is of the clock


def main() -> None:
    if sys.argv[1] == "--run":
        run(Path(sys.argv[2]), sys.argv[3:])
        return
    before, after, *only = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("before.json", "after.json")]
        children = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--run", str(file), *only],
                cwd=checkout,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": f"{checkout}:{checkout}/tests/helpers", "OMP_NUM_THREADS": "1"},
            )
            for checkout, file in zip((before, after), files, strict=True)
        ]
        codes = [child.wait() for child in children]
        if any(codes):
            sys.exit("a checkout could not train; see above")
        sys.exit(report(*(json.loads(file.read_text()) for file in files)))


def report(before: dict[str, Found], after: dict[str, Found]) -> int:
    """Print a line a configuration; returns 1 where one moved."""
    moved = 0
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            print(f"only {'before' if name in before else 'after'}  {name}")
            continue
        differences = [
            f"{part}: {line}" for part in before[name] for line in _differences(before[name][part], after[name][part])
        ]
        moved |= bool(differences)
        compared = sum(map(len, before[name].values()))
        print(f"{'MOVED' if differences else 'equal'}  {name}  ({compared} values)")
        print("".join(f"       {line}\n" for line in differences[:20]), end="")
    return moved


def _differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    gone, new = ({k: v for k, v in a.items() if k not in b} for a, b in ((before, after), (after, before)))
    lines = [f"{key} differs" for key in before.keys() & after.keys() if before[key] != after[key]]
    if sorted(gone.values()) != sorted(new.values()):
        lines.append(f"without a counterpart: {sorted(gone)[:5]} before, {sorted(new)[:5]} after")
    return lines


def run(out: Path, only: list[str]) -> None:
    """Train the configurations of the checkout at hand, and write the hashes of what came of it."""
    import torch
    import yaml
    from fake_configs import HEAVY, ROOT, on_fake_data
    from fake_configs import name as name_of

    from lit_vae.cli import main as command

    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "disabled"

    def lightning(*args: str | Path) -> None:
        sys.argv = ["lightning", *map(str, args)]
        command()

    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        features = _feature_net(Path(folder), ROOT, lightning)
        for path in sorted((ROOT / "configs").rglob("*.yaml")):
            name = name_of(path)
            if path.parent.name in ("overlays", "sweeps") or (only and name not in only):
                continue
            place = Path(folder) / name.replace("/", "_")
            place.mkdir()
            fake = on_fake_data(path, place, lightning, features)
            config: dict[str, Any] = yaml.safe_load(fake.read_text())
            steps = 3 if name in HEAVY else 20
            config["trainer"] |= {"max_steps": steps, "max_epochs": -1, "check_val_every_n_epoch": 5}
            config["trainer"]["callbacks"] = [c for c in config["trainer"]["callbacks"] if _trains(c)]
            fake.write_text(yaml.safe_dump(config))
            lightning("fit", "--config", fake, "--run_dir", place / "run")
            found[name] = _hashes(place / "run", torch)
            print(f"{Path.cwd().name}: {name}", file=sys.stderr)
    out.write_text(json.dumps(found))


def _trains(callback: dict[str, Any]) -> bool:
    """Whether a callback acts on the weights; pictures and measures cost most of the time."""
    return callback["class_path"].rpartition(".")[2] in ("EMA", "StartFrom", "GANHealth", "ImportanceSampledNLL")


def _feature_net(folder: Path, root: Path, lightning: Any) -> Path:
    import yaml

    config = yaml.safe_load((root / "configs" / "feature_net" / "digits.yaml").read_text())
    config["model"]["init_args"]["image_shape"] = [3, 8, 8]
    few = {"num_train": 24, "num_val": 24, "num_test": 24, "batch_size": 12}
    init_args = {"channels": 3, "size": 8, "num_classes": 10, "values": "uint8", **few}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": init_args}
    config["trainer"] = {"max_epochs": 1, "log_every_n_steps": 1, "callbacks": []}
    (folder / "features.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", folder / "features.yaml", "--run_dir", folder / "features")
    return folder / "features" / "checkpoints" / "last.ckpt"


def _hashes(run_dir: Path, torch: Any) -> Found:
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)

    def of(values: dict[str, Any]) -> dict[str, str]:
        return {name: _hash(value) for name, value in values.items()}

    states = checkpoint["optimizer_states"]
    optimizer = {f"{i}/{k}/{n}": v for i, s in enumerate(states) for k, o in s["state"].items() for n, v in o.items()}
    groups = {f"{i}/groups": repr(state["param_groups"]) for i, state in enumerate(states)}
    header, *rows = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    cells = {
        f"{column} in row {i}": cell
        for i, row in enumerate(rows)
        for column, cell in zip(header, row, strict=True)
        if cell and TIMES not in column and "_per_second" not in column
    }
    return {"weights": of(checkpoint["state_dict"]), "optimizer": of({**optimizer, **groups}), "metrics.csv": cells}


def _hash(value: Any) -> str:
    data = value.contiguous().reshape(-1).numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
