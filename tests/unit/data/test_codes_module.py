"""Codes in batches: the order, the shares and the resuming of images; and the warning of collapsed codes."""

import hashlib
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from test_codes_files import SIZES, SPEC, made_up, write_codes
from test_resume import SaveEverywhere

from lit_vae.codes import CodeBatch
from lit_vae.data.code_files import CodeWriter
from lit_vae.data.codes_module import Codes
from lit_vae.data.orders import EvalOrder, TrainOrder, example_order


@pytest.fixture
def root(tmp_path: Path) -> str:
    write_codes(tmp_path / "codes")
    return str(tmp_path / "codes")


def as_process(data: Codes, rank: int, world_size: int) -> Codes:
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world_size,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        overfit_batches=0.0,
    )
    return data


def digest(batch: CodeBatch) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*batch.codes, batch.y))).hexdigest()


def test_training_comes_in_the_order_of_images(root: str) -> None:
    data, made = Codes(root, batch_size=6, seed=5), made_up(SPEC, 20, seed=0)
    order = TrainOrder(20, 6, seed=5)
    loader = data.train_dataloader()
    assert len(loader) == 3
    for epoch in range(2):
        for i, batch in enumerate(loader):
            rows = order.indices(epoch, i)
            assert isinstance(batch, CodeBatch)
            assert torch.equal(batch.y, rows)
            for got, expected in zip(batch.codes, made.codes, strict=True):
                assert got.dtype == torch.int64
                assert torch.equal(got, expected[rows])


def test_evaluation_comes_in_order_and_whole_and_examples_are_its_first(root: str) -> None:
    data = Codes(root, batch_size=3)
    loaders = {
        "val": data.val_dataloader(),
        "test": data.predict_dataloader(),
        "train": data.ordered_dataloader("train"),
    }
    for split, loader in loaders.items():
        y = torch.cat([batch.y for batch in loader])
        assert y.tolist() == list(range(SIZES[split]))
        example = as_process(Codes(root), rank=1, world_size=2).example_batch(4, split)  # type: ignore[arg-type]
        source = data.source(split)  # type: ignore[arg-type]
        assert digest(example) == digest(source.read(example_order(source.classes())[:4], -1))
    assert len(data.example_batch(8).y) == 7


def test_processes_share_out_the_splits(root: str) -> None:
    ranks = [as_process(Codes(root, batch_size=3), rank, 2) for rank in range(2)]
    alone = Codes(root, batch_size=6).train_dataloader()
    for whole, *parts in zip(alone, *(data.train_dataloader() for data in ranks), strict=True):
        assert torch.equal(whole.y, torch.cat([part.y for part in parts]))
    for rank, data in enumerate(ranks):
        order = EvalOrder(7, 3, rank, 2)
        assert [b.y.tolist() for b in data.val_dataloader()] == [order.indices(-1, i).tolist() for i in range(2)]


def test_a_batch_larger_than_the_set(root: str) -> None:
    with pytest.warns(UserWarning, match=r"Codes: batch_size \(=21\) is more than the 20 training images"):
        assert len(next(iter(Codes(root, batch_size=21).train_dataloader())).y) == 20


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[str] = []

    def training_step(self, batch: CodeBatch, batch_idx: int) -> torch.Tensor:
        assert isinstance(batch, CodeBatch)
        self.seen.append(digest(batch))
        return self.scale * batch.codes[0].float().mean()

    def validation_step(self, batch: CodeBatch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data: Codes, ckpt_path: Path | None = None, **options: Any) -> list[str]:
    model = Line()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=2,
        **options,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model.seen


def test_a_resumed_run_goes_on_with_the_next_batch(root: str, tmp_path: Path) -> None:
    straight = fit(Codes(root, batch_size=6), callbacks=[SaveEverywhere(tmp_path)])
    assert len(set(straight)) == 6
    for done in (1, 2, 3, 5):
        checkpoint = tmp_path / f"batch_end-{done}.ckpt"
        assert fit(Codes(root, batch_size=6), checkpoint) == straight[done:]
    saved = torch.load(checkpoint, weights_only=True)["datamodule_hyper_parameters"]
    assert saved == {"root": root, "batch_size": 6, "seed": 0, "collapse_threshold": 0.1}


def test_the_spec_is_read_from_the_manifest_alone(root: str) -> None:
    for split in SIZES:
        shutil.rmtree(Path(root) / split)
    data = Codes(root)
    data.prepare_data()
    assert data.spec == replace(SPEC, distortion={"train": 4.75, "val": 1.5, "test": 1.0})


def test_a_folder_that_is_none_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        fit(Codes(str(tmp_path)))
    assert str(error.value) == (
        f"Codes: root (={str(tmp_path)!r}) contains no codes.json. Write it with: lit-vae encode RUN --out DIR. "
        "Or change data.init_args.root."
    )


def test_a_stage_needs_its_own_splits_alone(tmp_path: Path) -> None:
    write_codes(tmp_path / "codes", sizes={"train": 6, "val": 3})
    data = Codes(str(tmp_path / "codes"), batch_size=6)
    data.setup("fit")
    with pytest.raises(
        FileNotFoundError, match=r"must contain the split test, but contains train, val\. Write it with"
    ):
        data.setup("test")


def test_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(ValueError) as error:
        Codes("codes", batch_size=0, collapse_threshold=1.5)
    assert str(error.value).splitlines() == [
        "Codes: batch_size (=0) must be at least 1.",
        "Codes: collapse_threshold (=1.5) must be at least 0 and at most 1.",
    ]


def collapsed(root: Path) -> str:
    """Level 0 is used evenly, of the 300 codes of level 1 two are used, equally often."""
    spec = replace(SPEC, num_classes=0)
    with CodeWriter(root, spec) as writer:
        for split in ("train", "val"):
            codes = (torch.arange(16).view(8, 1, 2) % 4, torch.arange(48).view(8, 2, 3) % 2)
            writer.write(split, 8, [(CodeBatch(codes, torch.full((8,), -1)), torch.zeros(8))])
    return str(root)


def test_collapsed_codes_are_warned_of_once_before_training(tmp_path: Path) -> None:
    root = collapsed(tmp_path / "codes")
    data = Codes(root, batch_size=4)
    with pytest.warns(UserWarning, match="collapsed") as told:
        data.setup("fit")
    data.train_dataloader()
    assert [str(warning.message) for warning in told] == [
        f"Codes: the training codes in root (={root!r}) are collapsed: level 1 (perplexity 2.0 of num_embeddings 300, "
        "code usage 0.007). Perplexity / num_embeddings and code usage must be at least collapse_threshold (=0.1), or "
        "the prior samples noise. Train the model that made the codes with fewer codes or with revival of dead ones, "
        "or lower data.init_args.collapse_threshold."
    ]


def test_the_threshold_of_the_warning_is_the_user_s(tmp_path: Path) -> None:
    root = collapsed(tmp_path / "codes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Codes(root, batch_size=4, collapse_threshold=0.006).setup("fit")  # 2 / 300 of the codes
    with pytest.warns(UserWarning, match=r"are collapsed: level 1 \("):  # level 0 just reaches it
        Codes(root, batch_size=4, collapse_threshold=1.0).setup("fit")
    write_codes(tmp_path / "few", replace(SPEC, num_classes=0), {"train": 1, "val": 1})
    with pytest.warns(UserWarning, match=r"level 0 \(perplexity .* of num_embeddings 4, .*\), level 1 \("):
        Codes(str(tmp_path / "few"), batch_size=1, collapse_threshold=0.9).setup("fit")
