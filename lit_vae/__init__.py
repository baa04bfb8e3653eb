"""Image autoencoders in PyTorch Lightning. Importing it is light: nothing heavy is loaded until it is used."""

__version__ = "0.1.0"
