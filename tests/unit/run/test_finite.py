"""A loss or weights that are no numbers end a run, and no checkpoint holds them."""

import json
import re

import pytest
import torch
from lightning.pytorch import Callback

from lit_vae.run import finite
from lit_vae.run.finite import FiniteNumbers, not_finite

FAST = ["--trainer.callbacks=[]", "--trainer.check_val_every_n_epoch=1", "--trainer.max_epochs=2"]


class Spoil(Callback):
    """Makes a weight infinite after some step; the loss of that step was finite."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 30:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = torch.inf


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_mark_of_a_loss_stays(number, dtype):
    guard = FiniteNumbers()
    for loss in (1e30, 3.0):
        guard.on_before_backward(None, None, torch.tensor(loss, dtype=dtype))
    assert guard._mark.item() == 0.0
    for loss in (number, 1.0):
        guard.on_before_backward(None, None, torch.tensor(loss, dtype=dtype))
    assert guard._mark.item() != 0.0


def test_the_tensors_that_are_not_finite_are_named():
    large = torch.full((3,), 1e38)  # the square is infinite, the number is not
    named = {"a": large, "b": torch.tensor([0.0, torch.nan]), "c": torch.arange(3), "d": torch.tensor(-torch.inf)}
    assert not_finite(named.items()) == ["b", "d"]
    assert not_finite({"a": large}.items()) == []


def test_weights_that_are_spoilt_fail_the_run_and_keep_its_checkpoint(
    lightning, digits_config, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    monkeypatch.setattr(finite.FiniteNumbers, "on_train_batch_end", Spoil.on_train_batch_end)
    with pytest.raises(SystemExit) as left:
        lightning("fit", "--config", digits_config, "--run_dir", run, *FAST)
    assert left.value.code == 1
    assert re.search(r"error: (weights are|the loss is) not finite.* at step \d+", capsys.readouterr().err)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert "not finite" in record["error"]
    for name in ("last.ckpt", "best.ckpt"):
        content = torch.load(run / "checkpoints" / name, weights_only=True)
        assert content["global_step"] == 22
        assert not_finite(content["state_dict"].items()) == []
