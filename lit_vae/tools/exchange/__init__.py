"""Models to and from other libraries: ``lit-vae export`` and ``lit-vae import``."""

from lit_vae.tools.exchange.exported import export
from lit_vae.tools.exchange.imported import import_autoencoder

__all__ = ["export", "import_autoencoder"]
