"""``lightning fit|validate|test|predict``: Lightning's command line, with a run directory and readable errors.

Names no family: models, data and callbacks are found by the ``class_path`` of a configuration.
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment

from lit_vae import __version__
from lit_vae.models.module import Model
from lit_vae.ranks import rank, world_size
from lit_vae.run.callbacks import MonitoredInTraining, duplicates, monitor_problems
from lit_vae.run.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from lit_vae.run.continuing import continuation, start
from lit_vae.run.directory import RunDirectory, choose_run_dir, refuse_occupied
from lit_vae.run.errors import (
    INTERRUPTED_EXIT_CODE,
    Preempted,
    TrainingStopped,
    is_interrupt,
    message_for_user,
)
from lit_vae.run.finite import FiniteNumbers
from lit_vae.run.hardware import CountOperations, set_threads
from lit_vae.run.limits import check_numbers
from lit_vae.run.lock import exclusive_training, is_first_process
from lit_vae.run.loggers import WandB, place_loggers
from lit_vae.run.loop_state import LoopState
from lit_vae.run.offline import keep_others_offline
from lit_vae.run.other_ranks import OtherRanks, print_traceback_on_signal
from lit_vae.run.parser import Parser, check_sections, rows_alone
from lit_vae.run.predictions import PredictionFile
from lit_vae.run.preemption import signals_given_back
from lit_vae.run.progress import progress_bar
from lit_vae.run.random_state import RandomState
from lit_vae.run.record import RunRecord
from lit_vae.run.resume import checkpoint_in, note_start
from lit_vae.run.settings import with_home
from lit_vae.run.trust import forget_classes, trust_classes_of
from lit_vae.run.yaml_files import refuse_special_files

NOT_OF_THE_RUN = ("config", "run_dir", "ckpt_path")


class LitCLI(LightningCLI):
    """LightningCLI in subclass mode that keeps each run in one directory."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings of a run other than trainer, model and data."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Directory of the run. Default: runs/<config name>/<time or SLURM job id>.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="A .ckpt file, or last or best of the run. With fit: resume from it; auto: from last if it exists.",
        )
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")  # acts last, to save the others

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands, without the arguments that this command line sets itself.

        If the command names one of them, only that one: each costs 30 ms.
        """
        decided = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        every = {name: skipped | decided for name, skipped in LightningCLI.subcommands().items()}
        return {name: every[name] for name in sys.argv[1:2] if name in every} or every

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Expand ``~``, check all ranges of numbers, and trust the classes of the configuration in checkpoints."""
        super().parse_arguments(parser, args)
        check_sections(self.settings, "--")
        self.config = with_home(self.config)
        try:
            check_numbers(self.settings.as_dict())
        except ValueError as error:
            parser.error(str(error))
        trust_classes_of(self.config.as_dict())
        trainer = self.settings.trainer
        for name in ("logger", "callbacks", "plugins"):
            if isinstance(one := trainer.get(name), Namespace | str):
                trainer[name] = [one]  # as Lightning accepts in Python
        self.seed_given = self.settings.seed_everything  # True: any; Lightning then replaces it by a number
        # Lightning would override the configuration with the checkpoint's hyper-parameters
        self.checkpoint_given, self.settings.ckpt_path = self.settings.ckpt_path, None

    @property
    def settings(self) -> Namespace:
        """The configuration of the subcommand, or the whole one without subcommands."""
        return self.config[self.config.subcommand] if "subcommand" in self.config else self.config

    def before_instantiate_classes(self) -> None:
        """Choose the run directory, keep the given configuration, then set what depends on both."""
        config, asked = self.settings, self.checkpoint_given
        files = [Path(str(file)) for file in config.config or [] if file is not None]
        fit = self.subcommand == "fit"
        if not fit and asked is None:
            raise ValueError(
                f"lightning {self.subcommand}: untrained weights would be used."
                " Give --ckpt_path RUN/checkpoints/last.ckpt."
            )
        self.run_dir = choose_run_dir(config.run_dir, files, asked, fit)
        self.source = checkpoint_in(self.run_dir, asked, fit)
        if fit and not config.trainer.fast_dev_run and is_first_process():
            refuse_occupied(self.run_dir, self.source.path, asked)
        settings = self.written(self.config)
        self.continuation = start(settings, __version__)
        if fit and self.source.path is not None:
            settings["seed_everything"] = self.seed_given
            self.continuation = continuation(Path(self.source.path), self.run_dir, settings, self._complete)
        config.trainer.default_root_dir = str(self.run_dir)
        if fit:
            place_loggers(config.trainer, self.run_dir)
        else:
            config.trainer.logger = False  # results go into test_metrics.json, not into the curves

    def written(self, config: Namespace) -> dict[str, Any]:
        """The complete configuration for ``config.yaml``, which starts the run again."""
        dump = yaml.safe_load(self.parser.dump(config, skip_none=False, skip_validation=True))
        settings = dump.get(config.get("subcommand"), dump)
        return {key: value for key, value in settings.items() if key not in NOT_OF_THE_RUN}

    def _complete(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A configuration completed with today's defaults; empty if it is invalid."""
        given = {"subcommand": self.subcommand, self.subcommand: settings}
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return self.written(self.parser.parse_object(given))
        except SystemExit:
            return {}

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the callbacks and plugins of every run: atomic checkpoints, random states, the directory, progress."""
        config = self.config_init[self.subcommand].trainer
        self.other_ranks = OtherRanks()
        callbacks = [self.other_ranks, FiniteNumbers(), LoopState(), *(config.get("callbacks") or [])]
        callbacks.append(RunDirectory(self.continuation, resumed=self.source.path is not None))
        callbacks += [RandomState(), RunRecord(), PredictionFile(), MonitoredInTraining()]
        if config.get("enable_progress_bar") in (None, True) and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(progress_bar())
        if problems := duplicates(callbacks):
            raise ValueError("\n".join(problems))
        plugins = [*(config.get("plugins") or []), AtomicCheckpointIO()]
        if SLURMEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(SLURMEnvironment(auto_requeue=False))  # it saves in a signal handler: ranks deadlock
        trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        for logger in trainer.loggers:
            if isinstance(logger, WandB):
                logger.describe(yaml.safe_load(self.continuation.config))
        return trainer

    def after_instantiate_classes(self) -> None:
        """Raise all problems between model and data together, before any data is read; set threads."""
        spec = getattr(self.datamodule, "spec", None)
        if not isinstance(self.model, Model) or spec is None:
            return
        with CountOperations() as of_an_image:
            problems = [*self.model.problems(spec), *self.model.check_networks()]
        if self.subcommand != "predict":
            problems += self.model.loss_problems()
        if str(self.trainer.precision) in ("bf16-true", "16-true"):
            problems.append(
                f"trainer.precision (={self.trainer.precision}) would round the images, and sums over all their values."
                " Set trainer.precision to bf16-mixed, to 16-mixed (on a GPU), to 32-true or to 64-true."
            )
        if self.subcommand == "fit" and not problems:
            callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
            every = self.trainer.check_val_every_n_epoch
            problems = monitor_problems(callbacks, self.model, self.datamodule, every)
        if problems:
            raise ValueError("\n".join(problems))
        batch = getattr(self.datamodule, "batch_size", 1)
        said = set_threads(self.trainer, batch * of_an_image.total)
        if is_first_process():
            print(said, flush=True)

    def fit(self, **kwargs: Any) -> None:
        """Train under a lock: two trainings would overwrite each other's checkpoints and numbers."""
        if self.settings.trainer.fast_dev_run:
            return self._run(self.trainer.fit, **kwargs)
        with exclusive_training(self.run_dir):
            if is_first_process():
                note_start(self.run_dir, self.source.path)
                self.source.set_aside()
            return self._run(self.trainer.fit, **kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Lightning calls these methods instead of the trainer's."""
        self._run(self.trainer.validate, verbose=True, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Run without Lightning's table of results: the run directory prints one."""
        self._run(self.trainer.test, verbose=False, **kwargs)

    def predict(self, **kwargs: Any) -> None:
        """Run without returning predictions: they are in a file."""
        self._run(self.trainer.predict, return_predictions=False, **kwargs)

    def _run(self, method: Callable[..., Any], **kwargs: Any) -> None:
        with signals_given_back():
            try:
                method(ckpt_path=self.source.path, **kwargs)
            except BaseException as error:
                self.other_ranks.end(error)
                raise


def quieten_lightning() -> None:
    """Hide its advertisements, and deprecation warnings inside Lightning that users cannot fix."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    if not torch.cuda.is_available():
        # Lightning sets it, which makes every optimizer step search for a missing driver
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: "Tip:" not in record.getMessage())
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # steps are counted over all epochs, so terms are logged even if an epoch is short
    warnings.filterwarnings("ignore", message=r"The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message=r"Precision .* is not supported by the model summary")


def command_line(kind: type[LitCLI], run: bool = True) -> LitCLI:
    """Run ``lightning`` with ``sys.argv``; without ``run``, only build the components."""
    return kind(
        run=run,
        model_class=Model,
        subclass_mode_model=True,
        datamodule_class=LightningDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_class=Parser,
        parser_kwargs={"description": "Train and test image autoencoders: lightning fit --config FILE"},
    )


def main() -> None:
    """Entry point of ``lightning``. A user's mistake is one message and exit code 1 or 2, without a traceback."""
    RunDirectory.begun = False
    forget_classes()
    quieten_lightning()
    print_traceback_on_signal()
    hints = rows_alone(sys.argv[1:])  # now, because the parser reads a file from within its folder
    try:
        refuse_special_files(sys.argv[1:])
        keep_others_offline()
        command_line(LitCLI)
    except Exception as error:
        if isinstance(error, TrainingStopped) and not is_first_process():
            return  # all ranks stop together: with an error here, a launcher would kill the first while it reports
        said = message_for_user(error, RunDirectory.begun)
        if said is None or os.environ.get("LIT_VAE_TRACEBACK"):
            raise
        print(f"[rank{rank()}]: {said}" if world_size() > 1 else said, file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, Preempted) else 1)
    except (KeyboardInterrupt, SystemExit) as error:
        if not is_interrupt(error):
            if isinstance(error, SystemExit) and error.code == 2:
                print("".join(f"{hint}\n" for hint in hints), end="", file=sys.stderr)
            raise
        print("interrupted: nothing was saved since the last checkpoint", file=sys.stderr)
        sys.exit(INTERRUPTED_EXIT_CODE)


if __name__ == "__main__":
    main()
