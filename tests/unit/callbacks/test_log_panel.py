from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from lit_vae.run.panels import log_panel

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


def trainer(path, *loggers, **given):
    defaults = {"is_global_zero": True, "fast_dev_run": False, "global_step": 7}
    return SimpleNamespace(default_root_dir=str(path), loggers=list(loggers), **defaults | given)


class RecordingWandb(WandbLogger):
    """Records instead of starting W&B."""

    def __init__(self) -> None:
        self.logged = []

    def log_image(self, key, images, step=None, **kwargs):
        self.logged.append((key, images, step, kwargs))


def test_a_file_of_the_step_with_the_very_pixels_and_the_caption(tmp_path):
    log_panel(trainer(tmp_path), "samples", Image.fromarray(PIXELS), "what is seen: \N{GREEK SMALL LETTER SIGMA}")
    path = tmp_path / "media" / "samples" / "step_7.png"
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
        assert image.text["Description"] == "what is seen: \N{GREEK SMALL LETTER SIGMA}"
    assert list(path.parent.iterdir()) == [path]  # nothing unfinished is left


def test_a_given_step_wins(tmp_path):
    log_panel(trainer(tmp_path), "samples", Image.fromarray(PIXELS), step=12)
    assert (tmp_path / "media" / "samples" / "step_12.png").exists()


@pytest.mark.parametrize("colour", [False, True])
def test_every_logger_that_takes_images_gets_it_under_the_same_key(tmp_path, colour):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pixels = np.stack([PIXELS, PIXELS + 1, PIXELS + 2], -1) if colour else PIXELS
    wandb, board, csv = RecordingWandb(), TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path)
    log_panel(trainer(tmp_path, csv, wandb, board), "curves", Image.fromarray(pixels), "caption")
    path = tmp_path / "media" / "curves" / "step_7.png"
    assert wandb.logged == [("media/curves", [str(path)], 7, {"caption": ["caption"]})]
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    board.experiment.close()
    events = EventAccumulator(board.log_dir)
    events.Reload()
    (event,) = events.Images("media/curves")
    assert (event.step, event.width, event.height) == (7, 8, 6)


@pytest.mark.parametrize("state", [{"fast_dev_run": True}, {"is_global_zero": False}])
def test_a_trial_run_and_other_ranks_leave_nothing(tmp_path, state):
    wandb = RecordingWandb()
    log_panel(trainer(tmp_path, wandb, **state), "samples", Image.fromarray(PIXELS))
    assert not list(tmp_path.iterdir())
    assert not wandb.logged
