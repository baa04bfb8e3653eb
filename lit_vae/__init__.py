"""Image autoencoders in PyTorch Lightning. Importing this package is light: nothing heavy is loaded until it is used."""

__version__ = "0.1.0"
