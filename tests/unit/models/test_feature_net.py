"""FeatureNet: its terms, what it refuses, and that it learns."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_vae.images import Batch, ImageSpec
from lit_vae.models import FeatureNet
from lit_vae.networks import RandomTranslation, ResidualFeatures


def new_net(**given):
    arguments = {
        "image_shape": [1, 8, 8],
        "num_classes": 3,
        "network": partial(ResidualFeatures, widths=[8, 8]),
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
    }
    return FeatureNet(**arguments | given)


def test_terms_are_of_each_image():
    net = new_net().eval()
    x, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    terms = net.evaluation_terms(Batch(x, y), None)
    assert set(terms) == set(net.term_names)
    logits = net.network(x).float()
    for i in range(6):
        assert terms["cross_entropy"][i].item() == pytest.approx(
            (logits[i].logsumexp(0) - logits[i, y[i]]).item(), rel=1e-5
        )
        assert terms["accuracy"][i] == float(logits[i].argmax() == y[i])
    assert torch.equal(terms["loss"], terms["cross_entropy"])


def test_it_learns_and_augments_in_training_alone():
    net = new_net(augmentation=RandomTranslation(1))
    net.log_train = lambda terms: None
    y = torch.arange(30) % 3
    x = torch.randn(30, 1, 8, 8) * 0.1
    for label in range(3):  # a bar of the height of its label
        x[y == label, :, 2 : 4 + label, 3] += 1.0
    optimizer = net.configure_optimizers()
    before = net.evaluation_terms(Batch(x, y), None)["accuracy"].mean()
    for _ in range(40):
        loss = net.training_step(Batch(x, y), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.train()
    assert net.training_step(Batch(x, y), 0) != net.training_step(Batch(x, y), 0)
    net.eval()
    terms = net.evaluation_terms(Batch(x, y), None)
    assert terms["accuracy"].mean() > max(0.9, before)
    assert torch.equal(net.evaluation_terms(Batch(x, y), None)["loss"], terms["loss"])


def spec(**given):
    return ImageSpec(**{"channels": 1, "height": 8, "width": 8, "num_classes": 3, "values": "uint8"} | given)


def test_data_that_fit_have_no_problem():
    assert new_net().problems(spec()) == []
    assert new_net().problems(spec(num_classes=2)) == []
    assert new_net().check_networks() == []


@pytest.mark.parametrize(
    ("model", "data", "text"),
    [
        ({}, spec(num_classes=10), r"model.num_classes (=3) must be the number of the data's labels (=10)."),
        ({}, spec(num_classes=0), r"model.num_classes (=3) must be the number of the data's labels (=0)."),
        ({}, spec(channels=3), "model.image_shape (=[1, 8, 8]) is not the shape of the data's images [3, 8, 8]"),
        ({}, None, "it is a model of images, and the data are a NoneType. Take image data."),
        (
            {"network": partial(ResidualFeatures, widths=[4] * 5)}, spec(),
            "at least 16 pixels on each side, but model.image_shape is [1, 8, 8]. Set fewer widths in",
        ),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_told(model, data, text):
    (problem,) = new_net(**model).problems(data)
    assert text in problem


def test_a_network_that_does_not_take_the_images_is_told():
    net = new_net()
    net.network.stem = nn.Conv2d(3, 8, 3, padding=1)
    (problem,) = net.check_networks()
    assert "FeatureNet: the network does not take images [1, 8, 8]: " in problem


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"image_shape": [8, 8]}, r"image_shape \(=\[8, 8\]\) must be \[channels, height, width\]"),
        ({"num_classes": 1}, r"num_classes \(=1\) must be at least 2\."),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given, text):
    with pytest.raises(ValueError, match=text):
        new_net(**given)
