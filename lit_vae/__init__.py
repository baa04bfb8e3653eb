"""Image autoencoders in PyTorch Lightning. The import is fast: nothing heavy is loaded before it is used."""

from lit_vae.run.threads import set_defaults

__version__ = "0.2.0"

set_defaults()  # before torch is imported, which reads the number of threads once
