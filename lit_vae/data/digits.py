"""scikit-learn's digits: real images that need no download."""

import numpy as np
import torch

from lit_vae.data.base import ImageDataModule
from lit_vae.data.checks import Problem, check_held_out, pixel_problems
from lit_vae.data.loader import Source, Tensors
from lit_vae.data.preprocess import Binarization, pixel_preprocess
from lit_vae.data.splits import Part, Split
from lit_vae.images import ImageSpec
from lit_vae.ranges import PositiveInt, Seed, checked

_NUM_IMAGES = 1797


class Digits(ImageDataModule):
    """The 1,797 8 x 8 grey digits of ``sklearn.datasets.load_digits``.

    By default 1,437 for training, 180 for validation and 180 for test, drawn by ``seed`` and stratified by class. The
    17 levels ``v`` of the data become ``round(255 v / 16)``.

    Args:
        batch_size: images in a batch of one process.
        num_val: images for validation.
        num_test: images for test.
        binarization: ``dynamic`` draws each pixel with probability ``u / 255``, again in each epoch (once for
            validation and test images); ``static`` draws once, from ``seed``; ``threshold`` cuts at 128. Null: grey.
        dequantize: add uniform noise to grey images.
        seed: of the split, the shuffling and all noise.
    """

    @checked
    def __init__(
        self,
        batch_size: PositiveInt = 128,
        num_val: PositiveInt = 180,
        num_test: PositiveInt = 180,
        binarization: Binarization | None = None,
        dequantize: bool = False,
        seed: Seed = 0,
    ) -> None:
        problems = [
            *(
                Problem(name, size, "10 or more: one image of each class")
                for name, size in (("num_val", num_val), ("num_test", num_test))
                if size < 10
            ),
            *pixel_problems(dequantize, binarization),
        ]
        super().__init__(
            batch_size=batch_size,
            seed=seed,
            preprocess=pixel_preprocess(dequantize, None if problems else binarization),
            problems=problems,
        )
        check_held_out(self._component, _NUM_IMAGES, "images", num_val=num_val, num_test=num_test)
        self.save_hyperparameters()
        self.num_val, self.num_test = num_val, num_test

    @property
    def spec(self) -> ImageSpec:
        """The description of the images."""
        return ImageSpec(1, 8, 8, 10, self.preprocess.values)

    def load(self, part: Part) -> dict[Split, Source]:
        """Read all splits."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        levels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(np.rint(levels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
        whole = Tensors(images, torch.from_numpy(labels).long(), torch.arange(len(images)))

        held = {"random_state": self.seed, "shuffle": True}
        rest, test = train_test_split(np.arange(len(images)), test_size=self.num_test, stratify=labels, **held)
        train, val = train_test_split(rest, test_size=self.num_val, stratify=labels[rest], **held)
        parts: dict[Split, np.ndarray] = {"train": train, "val": val, "test": test}
        return {split: Tensors(*whole.read(torch.from_numpy(np.sort(indices)))) for split, indices in parts.items()}
