"""Networks: modules from one shape to another, with no loss and no Lightning in them."""

from lit_vae.networks.conv import ConvDecoder, ConvEncoder
from lit_vae.networks.mlp import MLP

__all__ = ["MLP", "ConvDecoder", "ConvEncoder"]
