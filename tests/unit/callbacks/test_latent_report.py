"""What `LatentReport` logs, keeps in checkpoints and says, also with averaged weights and through the command line."""

import pytest
import torch
import yaml

from callbacks import EMA, LatentReport
from lit_vae.noise import Draws
from lit_vae.run.checkpoints import BestCheckpoint, LastCheckpoint


def latents(model, x, y):
    """Two thousand draws of each posterior, or the latents themselves."""
    with torch.no_grad():
        if not hasattr(model, "encode"):
            return model.double().embed(x.double(), y)[None]
        return model.double().encode(x.double(), y).rsample(2000, Draws(0, 0, torch.arange(len(x))))


@pytest.mark.parametrize("family", ["VAE", "AE"])
def test_what_is_logged_of_a_test_is_of_all_its_images(family, new_model, new_trainer, data):
    model, report = new_model(family), LatentReport(None)
    trainer = new_trainer(report)
    trainer.test(model, datamodule=data, verbose=False)
    z = latents(model.eval(), *data.example_batch(20, "test")).flatten(0, 1)
    std = z.std(0, correction=0)
    tolerance = 1e-5 if family == "AE" else 0.02
    logged = trainer.callback_metrics
    assert float(logged["test/latent_std"]) == pytest.approx(z.std(correction=0).item(), rel=tolerance)
    assert float(logged["test/latent_std_min"]) == pytest.approx(std.min().item(), rel=tolerance)
    assert float(logged["test/latent_std_max"]) == pytest.approx(std.max().item(), rel=tolerance)
    assert report.saved is None  # checkpoints are of training, and say what a validation has measured


def test_every_checkpoint_after_a_validation_has_the_report(new_model, new_trainer, data, tmp_path, capsys):
    checkpoints = [LastCheckpoint(), BestCheckpoint()]
    trainer = new_trainer(LatentReport(), EMA(0.5), *checkpoints, max_epochs=2, enable_checkpointing=True)
    trainer.fit(new_model("VAE"), datamodule=data)
    for name in ("last", "best"):
        content = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        report = content["latent_report"]
        assert set(report) == {"mean", "std", "shift_factor", "scale_factor", "num_images", "split", "step"}
        assert (report["split"], report["num_images"], report["step"]) == ("val", 20, content["global_step"])
        model = new_model("VAE")
        model.load_state_dict(content["state_dict"])  # the average, and its latents are reported
        z = latents(model.eval(), *data.example_batch(20, "val"))
        assert report["scale_factor"] == pytest.approx(1.0 / z.std().item(), rel=0.02)
        torch.testing.assert_close(torch.tensor(report["mean"]).double(), z.mean((0, 1)), atol=0.05, rtol=0)
        trained = new_model("VAE")
        trained.load_state_dict(content["current_model_state"])
        other = latents(trained.eval(), *data.example_batch(20, "val"))
        assert abs(report["mean"][0] - other.mean((0, 1))[0]) > 1e-3
    last = (
        f"scale_factor {report['scale_factor']:.5f}, shift_factor {report['shift_factor']:.5f}, std of the 4 channels"
    )
    assert last in capsys.readouterr().out


def test_a_resumed_run_has_the_report_before_its_next_validation(new_model, new_trainer, data, tmp_path):
    trainer = new_trainer(LatentReport(), max_epochs=1)
    trainer.fit(new_model("VAE"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    report = torch.load(tmp_path / "half.ckpt", weights_only=True)["latent_report"]
    resumed = new_trainer(LatentReport(), max_epochs=2, check_val_every_n_epoch=5, num_sanity_val_steps=0)
    resumed.fit(new_model("VAE"), datamodule=data, ckpt_path=tmp_path / "half.ckpt")
    resumed.save_checkpoint(tmp_path / "later.ckpt")
    later = torch.load(tmp_path / "later.ckpt", weights_only=True)
    assert later["latent_report"] == report
    assert later["latent_report"]["step"] == 3 < later["global_step"]  # and it says how old it is


def test_through_the_command_line(lightning, digits_config, tmp_path, capsys):
    config = yaml.safe_load(digits_config.read_text())
    config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "check_val_every_n_epoch": 1, "logger": False}
    config["trainer"] |= {"callbacks": [{"class_path": "callbacks.LatentReport"}, {"class_path": "callbacks.EMA"}]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", tmp_path / "small.yaml", "--run_dir", tmp_path / "run")
    report = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["latent_report"]
    assert len(report["mean"]) == len(report["std"]) == 8
    assert f"latents: scale_factor {report['scale_factor']:.5f}" in capsys.readouterr().out


def test_zero_epochs_between_two_are_an_error():
    with pytest.raises(ValueError, match=r"LatentReport: every_n_epochs \(=0\) must be at least 1"):
        LatentReport(0)
