"""docs/add-a-family.md: its code is that of the file, which trains from its configuration to a picture."""

import json
import re
import sys
import textwrap

from fake_configs import ROOT, Lightning

FOLDER = ROOT / "docs" / "ladder_vae"


def test_the_page_shows_the_code_of_the_file():
    source = (FOLDER / "ladder_vae.py").read_text().replace("``", "")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-family.md").read_text(), re.DOTALL)
    for line in textwrap.dedent(block).splitlines():
        if not line.startswith("def "):  # of which the page leaves the annotations out
            assert line.strip() in source
    assert len((FOLDER / "ladder_vae.py").read_text().splitlines()) < 80


def test_the_family_trains_from_its_configuration(lightning: Lightning, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    run = tmp_path / "run"
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=1"]
    lightning("fit", "--config", FOLDER / "digits.yaml", "--run_dir", run, *short, "--trainer.log_every_n_steps=1")
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    sys.modules.pop("ladder_vae")
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/rate_0", "train/rate_1", "val/rate_0", "val/bits_per_dim"} <= set(header)
    assert "test/nll_iw128" in json.loads((run / "test_metrics.json").read_text())["metrics"]
    assert (run / "media" / "samples").is_dir()
