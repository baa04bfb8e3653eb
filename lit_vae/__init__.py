"""Image autoencoders in PyTorch Lightning. Importing it is light: nothing heavy is loaded until it is used."""

from lit_vae.run.threads import set_defaults

__version__ = "0.2.0"

set_defaults()  # before anything of the package loads torch, whose threads read it once
