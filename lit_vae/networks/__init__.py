"""Networks: plain modules from one shape to another, without losses and Lightning."""

from lit_vae.networks.blocks import NVAECell, VDVAEBlock
from lit_vae.networks.conditioning import ConditioningStack
from lit_vae.networks.conv import ConvDecoder, ConvEncoder
from lit_vae.networks.discriminator import PatchDiscriminator
from lit_vae.networks.dit import DiT
from lit_vae.networks.layers import ResidualBlock
from lit_vae.networks.ldm import LDMDecoder, LDMEncoder
from lit_vae.networks.mlp import MLP
from lit_vae.networks.pixelcnn import GatedPixelCNN
from lit_vae.networks.residual_features import RandomTranslation, ResidualFeatures
from lit_vae.networks.transformer import CausalTransformer
from lit_vae.networks.unet import UNet
from lit_vae.networks.vqvae import HierarchicalEncoder, VQVAEDecoder, VQVAEEncoder

__all__ = [
    "MLP",
    "CausalTransformer",
    "ConditioningStack",
    "ConvDecoder",
    "ConvEncoder",
    "DiT",
    "GatedPixelCNN",
    "HierarchicalEncoder",
    "LDMDecoder",
    "LDMEncoder",
    "NVAECell",
    "PatchDiscriminator",
    "RandomTranslation",
    "ResidualBlock",
    "ResidualFeatures",
    "UNet",
    "VDVAEBlock",
    "VQVAEDecoder",
    "VQVAEEncoder",
]
