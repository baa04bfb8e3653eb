"""A training step of a quantizer alone."""

from torch import Tensor

from lit_vae.quantizers import Quantized, Quantizer, update_codebooks


def trained(quantizer: Quantizer, z_e: Tensor) -> Quantized:
    """What it makes of ``z_e (B, d, *grid)``, from which its codebook then learns."""
    quantized = quantizer(z_e)
    update_codebooks([quantizer], [quantized])
    return quantized
