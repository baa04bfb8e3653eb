"""Use of the codes of a codebook over a whole data set and all ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_vae.codes import CodeStatistics, code_statistics, count_codes
from lit_vae.ranges import PositiveInt, checked


class CodeUsage(Metric):
    """Counts the codes of one level, and computes `CodeStatistics`.

    The counts are integers, so batches, order and number of ranks do not change the result.

    >>> usage = CodeUsage(4)
    >>> usage.update(torch.tensor([[0, 1], [1, 0]]))
    >>> usage.compute().perplexity, usage.compute().usage  # two codes of four, equally often
    (tensor(2., dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """

    full_state_update = False
    counts: Tensor

    @checked
    def __init__(self, num_embeddings: PositiveInt) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.add_state("counts", default=torch.zeros(num_embeddings, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Count ``codes``, integers of any shape in ``0 .. K - 1``."""
        self.counts += count_codes(codes, self.num_embeddings)

    def compute(self) -> CodeStatistics:
        """Statistics over all ranks, equal on each.

        Raises:
            ValueError: nothing was counted.
        """
        return code_statistics(self.counts)
