"""What the processes of `warm` are forked with: what ``lightning`` imports, in its order, then the rest."""

# ruff: noqa: F401
import lit_vae.cli  # isort: skip

import matplotlib.pyplot
import sklearn.datasets
import torch
import wandb

import callbacks
import lit_vae.data
import lit_vae.features
import lit_vae.likelihoods
import lit_vae.models
import lit_vae.networks
import lit_vae.objectives
import lit_vae.priors
import lit_vae.quantizers
import lit_vae.realism
import lit_vae.run.loggers
import lit_vae.tools.priors.encoding

torch.set_num_threads(1)
matplotlib.pyplot.figure().canvas.draw()  # finds its fonts
