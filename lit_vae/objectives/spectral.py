"""A penalty of the largest singular values of a network's convolutions."""

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.ranges import PositiveFloat, PositiveInt, checked

Size = tuple[int, int]


class SpectralPenalty(nn.Module):
    """``weight`` times the sum of the largest singular values of all convolutions, ``sum_i s_i``.

    Vahdat and Kautz, "NVAE", 2020, sec. 3.2: it keeps the KL of a hierarchy from growing without bounds. As in NVAE's
    code, a kernel ``(out, in, h, w)`` is the matrix ``(out, in h w)``; this is not the norm of the convolution as a map
    of images. The singular vectors follow the weights by a few power iterations a step.

    Args:
        weight: lambda; NVAE has 0.01, and 0.1 on faces of 64 x 64 pixels.
        iterations: power iterations in a step.
    """

    @checked
    def __init__(self, weight: PositiveFloat = 0.01, iterations: PositiveInt = 4) -> None:
        super().__init__()
        self.weight, self.iterations = weight, iterations

    def build(self, network: nn.Module) -> None:
        """Start the left singular vectors of the convolutions: buffers, one for all matrices of one size.

        Raises:
            ValueError: the network has no convolutions.
        """
        found = _matrices(network)
        if not found:
            raise ValueError(
                f"SpectralPenalty: {type(network).__name__} has no convolutions. Set model.init_args.spectral: null."
            )
        for size, matrices in found.items():
            self.register_buffer(_name(size), F.normalize(torch.randn(len(matrices), size[0]), dim=1))

    def forward(self, network: nn.Module) -> Tensor:
        """The weighted sum ``()``, after a few more iterations; the network is that of `build`."""
        total = torch.zeros((), device=next(network.parameters()).device)
        for size, matrices in _matrices(network).items():
            vectors = self.get_buffer(_name(size))
            with torch.autocast(vectors.device.type, enabled=False):
                w = torch.stack(matrices).to(torch.promote_types(matrices[0].dtype, torch.float32))
                with torch.no_grad():
                    left, right = self._iterated(w, vectors.to(w.dtype))
                    vectors.copy_(left)
                total = total + torch.einsum("nr,nrc,nc->", left, w, right)
        return self.weight * total

    def _iterated(self, w: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Singular vectors ``(n, rows)`` and ``(n, columns)`` of ``w (n, rows, columns)``, from earlier left ones."""
        for _ in range(self.iterations):
            right = F.normalize(torch.einsum("nr,nrc->nc", left, w), dim=1)
            image = torch.einsum("nrc,nc->nr", w, right)
            norm = image.norm(dim=1, keepdim=True)
            # a kernel that is still zero, as the last of each prior at the start, must not erase its vector
            left = torch.where(norm > 0.0, image / norm.clamp_min(torch.finfo(w.dtype).tiny), left)
        return left, right


def _matrices(network: nn.Module) -> dict[Size, list[Tensor]]:
    """The kernels of all convolutions as matrices, in order, by size."""
    found = defaultdict(list)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            matrix = module.weight.flatten(1)
            found[matrix.shape[0], matrix.shape[1]].append(matrix)
    return found


def _name(size: Size) -> str:
    return f"left_{size[0]}x{size[1]}"
