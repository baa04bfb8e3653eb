"""Image data sets, and codes and latents of images, as Lightning data modules."""

from lit_vae.data.base import ImageDataModule
from lit_vae.data.celeba import CelebA
from lit_vae.data.cifar10 import CIFAR10
from lit_vae.data.codes_module import Codes
from lit_vae.data.digits import Digits
from lit_vae.data.fake import FakeImages
from lit_vae.data.image_folder import ImageFolder
from lit_vae.data.latents_module import Latents
from lit_vae.data.mnist import MNIST, FashionMNIST

__all__ = [
    "CIFAR10",
    "MNIST",
    "CelebA",
    "Codes",
    "Digits",
    "FakeImages",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "Latents",
]
