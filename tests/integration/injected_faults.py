"""A callback that fails on purpose, in one rank and at one step, as the environment asks."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

VARIABLE = "INJECTED_FAULT"


def fault(what: str, where: str = "on_before_backward", rank: int = 1, step: int = 7) -> dict[str, str]:
    """The environment that asks for ``raise``, ``hang``, ``kill``, ``nan`` or ``break``, in a hook of a callback."""
    return {VARIABLE: json.dumps({"what": what, "where": where, "rank": rank, "step": step})}


class Fault(Callback):
    """Fails where `fault` says."""

    def on_train_batch_start(self, trainer: Trainer, _: Any, batch: Any, *__: Any) -> None:
        self._batch = batch
        self._meet(trainer, "on_train_batch_start")

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        self._meet(trainer, "on_before_backward")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._meet(trainer, "on_validation_end")

    def _meet(self, trainer: Trainer, where: str) -> None:
        asked = json.loads(os.environ.get(VARIABLE, "{}"))
        if asked.get("where") != where or asked["rank"] != trainer.global_rank or trainer.global_step < asked["step"]:
            return
        print(f"injected at {time.time()}", flush=True)
        if asked["what"] == "nan":
            self._batch.x[0, 0, 0, 0] = float("nan")
            return
        if asked["what"] == "break":
            for image in Path(os.environ["BROKEN"]).iterdir():
                image.write_bytes(image.read_bytes()[:40])
            return
        if asked["what"] == "hang":
            time.sleep(3600)
        if asked["what"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError(f"injected into rank {trainer.global_rank}")
