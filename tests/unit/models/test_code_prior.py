"""The prior over codes: an exact distribution over one level or several, and draws that follow it."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Generator

from lit_vae.codes import CodeBatch, CodeSpec
from lit_vae.images import ImageSpec
from lit_vae.models import CodePrior
from lit_vae.networks import CausalTransformer, ConditioningStack, GatedPixelCNN
from lit_vae.sampling import CodeSampling

ADAM = partial(torch.optim.Adam, lr=1e-3)
PIXELCNN = partial(GatedPixelCNN, width=8, layers=2, kernel_size=3, head_width=8)
TRANSFORMER = partial(CausalTransformer, width=8, layers=1, heads=2)
STACK = partial(ConditioningStack, width=8, blocks=1)


def prior(grids, num_embeddings, network=PIXELCNN, **given) -> CodePrior:
    if len(grids) > 1:
        given["conditioning"] = STACK
    model = CodePrior(grids, num_embeddings, [network] * len(grids), ADAM, embedding_dim=4, **given).double()
    for parameter in model.parameters():  # some layers start at zero
        if (parameter == 0.0).all():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def every_map(k: int, grid) -> torch.Tensor:
    """All maps of codes: ``(k ** (h w), h, w)``."""
    n = math.prod(grid)
    return torch.tensor(list(itertools.product(range(k), repeat=n))).view(-1, *grid)


def labels(n: int, label: int = 0) -> torch.Tensor:
    return torch.full((n,), label)


@pytest.mark.parametrize("network", [PIXELCNN, TRANSFORMER], ids=["pixelcnn", "transformer"])
@pytest.mark.parametrize("classes", [0, 2])
def test_probabilities_of_all_codes_sum_to_one(network, classes):
    model = prior([[2, 2]], [3], network, num_classes=classes)
    codes = every_map(3, (2, 2))
    for label in range(max(classes, 1)):
        rate = model.evaluation_terms(CodeBatch((codes,), labels(81, label)), None)["rate"]
        assert torch.exp(-rate).sum().item() == pytest.approx(1.0, abs=1e-12)


def test_probabilities_of_all_pairs_of_levels_sum_to_one():
    """The fine level is conditioned on the coarse one: for each coarse map it sums to one, and so does the whole."""
    model = prior([[1, 2], [2, 2]], [2, 2])
    top, bottom = every_map(2, (1, 2)), every_map(2, (2, 2))
    rates = []
    for coarse in top:
        batch = CodeBatch((coarse.expand(16, 1, 2), bottom), labels(16))
        terms = model.evaluation_terms(batch, None)
        torch.testing.assert_close(terms["rate"], terms["rate_0"] + terms["rate_1"])
        assert torch.exp(-terms["rate_1"]).sum().item() == pytest.approx(1.0, abs=1e-12)
        rates.append(terms["rate"])
    assert torch.exp(-torch.stack(rates)).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (rates[0] - rates[1]).abs().max() > 1e-3  # the coarse level matters


def test_every_fine_position_sees_every_coarse_one_and_no_later_fine_one():
    model = prior([[2, 2], [4, 4]], [3, 3])
    codes = (torch.randint(3, (1, 2, 2)), torch.randint(3, (1, 4, 4)))
    vectors = [
        table(c).movedim(-1, 1).detach().requires_grad_() for table, c in zip(model.embeddings, codes, strict=True)
    ]
    spatial = model.conditionings[0](vectors[0])
    logits = model.networks[1](vectors[1], None, spatial)
    for row, column in itertools.product(range(4), range(4)):
        grads = torch.autograd.grad(logits[0, :, row, column].square().sum(), vectors, retain_graph=True)
        assert (grads[0].abs().sum(1) > 0).all()
        assert (grads[1].abs().sum(1).flatten()[row * 4 + column :] == 0).all()


def test_draws_follow_the_prior_level_by_level():
    model = prior([[1, 2], [1, 2]], [2, 2])
    codes = model.sample_codes(20_000, generator=Generator().manual_seed(0))
    flat = torch.cat([level.flatten(1) for level in codes], 1)
    which = (flat * torch.tensor([8, 4, 2, 1])).sum(1)
    shares = torch.bincount(which, minlength=16) / len(which)
    every = every_map(2, (1, 4)).view(16, 2, 1, 2)
    rate = model.evaluation_terms(CodeBatch((every[:, 0], every[:, 1]), labels(16)), None)["rate"]
    torch.testing.assert_close(shares, torch.exp(-rate).detach(), rtol=0, atol=0.012)


def test_the_most_probable_codes_are_greedy_and_progress_reaches_the_end():
    model = prior([[2, 2], [4, 4]], [3, 5], num_classes=2)
    seen = []
    y = torch.tensor([0, 1, 1])
    codes = model.sample_codes(3, y, CodeSampling(temperature=0.0), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 20) for i in range(1, 21)]
    for level in (0, 1):
        torch.testing.assert_close(model.logits(level, codes, y).argmax(1), codes[level])


def test_label_smoothing_is_in_the_loss_and_never_in_the_rate():
    model = prior([[2, 2]], [3], label_smoothing=0.3)
    batch = CodeBatch((every_map(3, (2, 2)),), labels(81))
    terms = model._terms(batch, model.label_smoothing)
    log_p = model.logits(0, batch.codes, batch.y).log_softmax(1)
    rate = -log_p.gather(1, batch.codes[0].unsqueeze(1)).sum((1, 2, 3))
    torch.testing.assert_close(terms["rate"], rate)
    torch.testing.assert_close(terms["loss"], 0.7 * rate - 0.3 * log_p.mean(1).sum((1, 2)))
    torch.testing.assert_close(model.evaluation_terms(batch, None)["loss"], rate)


def test_training_one_level_does_not_touch_the_other():
    model = prior([[2, 2], [4, 4]], [3, 3])
    terms = model._terms(CodeBatch((torch.zeros(1, 2, 2).long(), torch.zeros(1, 4, 4).long()), labels(1)), 0.0)
    trained = []
    for level in (0, 1):
        model.zero_grad()
        terms[f"rate_{level}"].sum().backward(retain_graph=True)
        trained.append({name for name, p in model.named_parameters() if p.grad is not None})
    assert not trained[0] & trained[1]
    assert trained[0] | trained[1] == {name for name, _ in model.named_parameters()}


def test_draws_are_the_same_under_autocast_and_leave_every_module_in_its_mode():
    model = prior([[2, 2], [4, 4]], [3, 3]).float().train()
    model.networks[0].eval()  # frozen
    expected = model.sample_codes(8, generator=Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        codes = model.sample_codes(8, generator=Generator().manual_seed(0))
    assert all(map(torch.equal, codes, expected))
    assert model.networks[1].training
    assert not model.networks[0].training


# ---- what does not fit ----------------------------------------------------------------------------------------------


def spec(grids=((2, 2),), num_embeddings=(3,), num_classes=2) -> CodeSpec:
    return CodeSpec(
        grids=grids,
        num_embeddings=num_embeddings,
        num_classes=num_classes,
        checkpoint="a.ckpt",
        checkpoint_sha256="abc",
        model="lit_vae.models.VQVAE",
        image_shape=(1, 2, 2),
        distortion={"val": 10.0},
        bits_per_dim=(4, 7.0),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grids": ((4, 4),)}, "model.grids (=[[2, 2]]) are not those of the codes, [[4, 4]]"),
        ({"num_embeddings": (4,)}, "model.num_embeddings (=[3]) must be those of the codes, [4]"),
        ({"num_embeddings": (2,)}, "model.num_embeddings (=[3]) must be those of the codes, [2]"),
        ({"num_classes": 0}, "model.num_classes (=2) must be the number of the data's labels (=0)"),
        ({"num_classes": 3}, "model.num_classes (=2) must be the number of the data's labels (=3)"),
    ],
)
def test_codes_that_do_not_fit_are_named(given, message):
    model = prior([[2, 2]], [3], num_classes=2)
    assert model.problems(spec()) == []
    (problem,) = model.problems(spec(**given))
    assert message in problem


def test_images_are_no_codes():
    (problem,) = prior([[2, 2]], [3]).problems(ImageSpec(1, 8, 8, 10, "uint8"))
    assert "the data are images. Take lit_vae.data.Codes" in problem


def test_levels_must_agree():
    with pytest.raises(ValueError, match=r"grids \(=2 given\), num_embeddings \(=1\) and networks \(=1\) must be one"):
        CodePrior([[2, 2], [4, 4]], [3], [PIXELCNN], ADAM)
    with pytest.raises(ValueError, match=r"with a conditioning if there are several \(none given\)"):
        CodePrior([[2, 2], [4, 4]], [3, 3], [PIXELCNN, PIXELCNN], ADAM)


def test_its_stage_1_travels_in_the_checkpoint():
    model, checkpoint = prior([[2, 2]], [3]), {}
    model.stage1 = {"path": "a.ckpt", "sha256": "abc"}
    model.on_save_checkpoint(checkpoint)
    other = prior([[2, 2]], [3])
    other.on_load_checkpoint(checkpoint)
    assert other.stage1 == model.stage1


def test_bits_and_elbo_come_from_the_distortion_of_stage_1(monkeypatch):
    model = prior([[2, 2]], [3])
    monkeypatch.setattr(CodePrior, "data_spec", spec())
    found = model._with_derived({"rate": torch.tensor(6.0)}, "val", model.data_spec)
    assert found["elbo"].item() == pytest.approx(-16.0)
    assert found["bits_per_code"].item() == pytest.approx(6.0 / (4 * math.log(2.0)))
    assert found["bits_per_dim"].item() == pytest.approx(16.0 / (4 * math.log(2.0)) + 7.0)
    assert "elbo" not in model._with_derived({"rate": torch.tensor(6.0)}, "test", model.data_spec)
