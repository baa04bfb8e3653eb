"""What a trained model made of images: the part of the description that data sets of codes and of latents share."""

from dataclasses import dataclass

from lit_vae.images import Shape


@dataclass(frozen=True, kw_only=True)
class EncodedSpec:
    """Description of a data set that a trained model, its stage 1, made of images.

    Args:
        checkpoint: checkpoint of stage 1, which also decodes.
        checkpoint_sha256: SHA-256 of that file.
        model: class path of stage 1.
        image_shape: ``(C, H, W)`` of the images.
        num_classes: number of labels, 0 for images without labels.
        bits_per_dim: ``(D, offset)``: ``n`` nats of an image are ``n / (D log 2) + offset`` bits per dimension; None
            if the nats are not a probability of the images.
        class_names: names of the labels; empty if they have numbers only.
    """

    checkpoint: str
    checkpoint_sha256: str
    model: str
    image_shape: Shape
    num_classes: int
    bits_per_dim: tuple[int, float] | None
    class_names: tuple[str, ...] = ()
