"""A configuration of the repository on made-up images, and the loop that one would write without Lightning."""

import importlib
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from benchmarks.timing import now
from lit_vae.data.base import ImageDataModule
from lit_vae.data.loader import TensorLoader, Tensors
from lit_vae.data.orders import TrainOrder
from lit_vae.images import Batch
from lit_vae.models.module import Model
from lit_vae.models.vae import VAE
from lit_vae.noise import Draws
from lit_vae.run.config_folders import with_base
from lit_vae.tools.configurations import complete_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def on_fake_images(name: str, num_batches: int, batch_size: int) -> dict[str, Any]:
    """``configs/<name>.yaml`` with images of the same kind, ``num_batches`` an epoch, in place of its data."""
    config = complete_config(with_base(CONFIGS / f"{name}.yaml"))
    module, cls = config["data"]["class_path"].rsplit(".", 1)
    spec = getattr(importlib.import_module(module), cls)(**config["data"]["init_args"]).spec
    images = {"channels": spec.channels, "size": spec.height, "num_classes": spec.num_classes, "values": spec.values}
    sizes = {"num_train": num_batches * batch_size, "num_val": 64, "num_test": 64, "batch_size": batch_size}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": {**images, **sizes}}
    return config


def build(config: dict[str, Any]) -> tuple[VAE, ImageDataModule]:
    """Model and data of a configuration, as the command line builds them."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Model, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parts = parser.parse_object({"model": config["model"], "data": config["data"]})
    torch.manual_seed(0)
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # until jsonargparse 4.49
    built = instantiate(parts)
    return built.model, built.data


class BareLoop:
    """Plain PyTorch: the module, objective, optimizer, schedule and loader of a configuration, and nothing else.

    Args:
        config: of `on_fake_images`.
        device: where everything is.
        bf16: run the forward pass under autocast, as Lightning's ``bf16-mixed`` does.
        channels_last: keep the weights channels-last, as `callbacks.ChannelsLast` does.
        log_every: steps between two at which the terms are read; 0: never.
    """

    def __init__(
        self,
        config: dict[str, Any],
        device: torch.device,
        bf16: bool = False,
        channels_last: bool = False,
        log_every: int = 0,
    ) -> None:
        model, data = build(config)
        self.model = model.to(device).train()
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        source = data.source("train")
        assert isinstance(source, Tensors)
        order = TrainOrder(len(source), data.batch_size, data.seed)
        self.loader = TensorLoader(source.to(device), order, data.preprocess, data.seed, device)
        configured = self.model.configure_optimizers()
        scheduled = isinstance(configured, dict)
        self.optimizer = configured["optimizer"] if scheduled else configured
        self.schedule = configured["lr_scheduler"]["scheduler"] if scheduled else None
        self.device, self.bf16, self.log_every = device, bf16, log_every
        self.logged: list[dict[str, float]] = []
        self.step = 0

    def train(self, batch: Batch) -> None:
        """One step."""
        model = self.model
        self.optimizer.zero_grad()
        draws = Draws(torch.initial_seed(), self.step, torch.arange(len(batch.x), device=self.device))  # the model's
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            terms = model.step(batch, self.step, draws).terms
            loss = terms["loss"].mean()
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        if self.log_every and self.step % self.log_every == 0:
            self.logged.append({name: float(value.detach().mean()) for name, value in terms.items()})

    def seconds_per_step(self, warmup: int) -> float:
        """Of the next epoch, without its first ``warmup`` steps."""
        batches: Iterator[Batch] = iter(self.loader)
        with mock.patch.dict(os.environ):
            # Lightning sets it at import, and every optimizer step then looks for an NVIDIA driver on the disk: a cost
            # of Lightning, not of the bare loop
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
            for _ in range(warmup):
                self.train(next(batches))
            steps = len(self.loader) - warmup
            start = now(self.device)
            for batch in batches:
                self.train(batch)
            return (now(self.device) - start) / steps
