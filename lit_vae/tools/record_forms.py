"""The forms of the files in a run directory, as far as the verbs of ``lit-vae`` read them."""

from typing import Any

from pydantic import Field

from lit_vae.run.forms import Form

Metrics = dict[str, float | None]
Protocols = dict[str, dict[str, Any]]


class Component(Form):
    """A class and its arguments."""

    class_path: str
    init_args: dict[str, Any] | None = None


class Config(Form):
    """``config.yaml``."""

    model: Component | None = None
    data: Component | None = None


class RunRecord(Form):
    """``run.json``."""

    status: str
    error: str = ""
    model: str = ""
    step: int = 0
    seconds: float | None = None
    parameters: dict[str, int] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None
    device: str = ""
    ranks: int = 1
    protocols: Protocols = Field(default_factory=dict)
    updated: str = ""


class _Measured(Form):
    checkpoint: str = ""
    checkpoint_sha256: str | None = None
    data: str | None = None
    image_shape: list[int] | None = None
    values: str | None = None
    metrics: Metrics = Field(default_factory=dict)


class TestMetrics(_Measured):
    """``test_metrics.json``."""

    model: str = ""
    data_seed: int | None = None
    num_images: int | None = None
    data_fingerprint: str | None = None
    protocols: Protocols = Field(default_factory=dict)
    replicates: dict[str, list[float]] = Field(default_factory=dict)


class PriorRecord(_Measured):
    """``priors/<kind>.json``."""

    samples: dict[str, Any] = Field(default_factory=dict)
    bound_nats: Metrics = Field(default_factory=dict)
    bound_replicates: dict[str, list[float]] = Field(default_factory=dict)


class Drawn(Form):
    """Measurements of samples from one prior."""

    checkpoint: str = ""
    checkpoint_sha256: str | None = None
    metrics: Metrics = Field(default_factory=dict)
    protocols: Protocols = Field(default_factory=dict)


class Evaluation(Form):
    """``evaluation.json``."""

    model: Drawn | None = None
    gmm: Drawn | None = None
    flow: Drawn | None = None
    vamp: Drawn | None = None
    vae: Drawn | None = None
    samplings: dict[str, Drawn] = Field(default_factory=dict)
    """Of a diffusion model that was drawn in other ways than in its run; what `lit_vae.diffusion.Sampling` says."""


class Latents(Form):
    """``latents.json``."""

    checkpoint_sha256: str
    scale_factor: float
    mean: list[float]
    std: list[float]
    num_images: int
    split: str
