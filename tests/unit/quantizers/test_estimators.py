"""Gradients through the choice: copied, or turned with the code."""

import pytest
import torch

from lit_vae.quantizers import RotationTrick, StraightThrough


def jacobian(estimator, z_e, z_q):
    return torch.autograd.functional.jacobian(lambda z: estimator(z, z_q), z_e)


@pytest.mark.parametrize("estimator", [StraightThrough(), RotationTrick()])
def test_the_value_is_the_codes_bit_by_bit_and_the_codes_get_no_gradient(estimator):
    z_e, z_q = torch.randn(2, 100, 4).unbind()
    z_q = (1e3 * z_q).requires_grad_()
    out = estimator(z_e.requires_grad_(), z_q)
    assert torch.equal(out, z_q)
    out.sum().backward()
    assert z_e.grad is not None
    assert z_q.grad is None


def test_straight_through_is_the_identity(float64):
    assert torch.equal(jacobian(StraightThrough(), *torch.randn(2, 4)), torch.eye(4))


@pytest.mark.parametrize("dim", [2, 5])
def test_the_rotation_trick_turns_and_scales(float64, dim):
    z_e, z_q = torch.randn(2, dim)
    j = jacobian(RotationTrick(), z_e, z_q)
    scale = z_q.norm() / z_e.norm()
    rotation = j / scale
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(dim))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.tensor(1.0))
    torch.testing.assert_close(j @ z_e, z_q)
    # in the plane of the two vectors only, and by the smallest angle: what is orthogonal to both stays
    basis = torch.linalg.qr(torch.stack([z_e, z_q], 1), mode="complete").Q[:, 2:]
    torch.testing.assert_close(rotation @ basis, basis)
    a, b = z_e / z_e.norm(), z_q / z_q.norm()
    explicit = torch.eye(dim) + torch.outer(b, a) - torch.outer(a, b)
    explicit += (torch.outer(b, a) - torch.outer(a, b)) @ (torch.outer(b, a) - torch.outer(a, b)) / (1 + a @ b)
    torch.testing.assert_close(rotation, explicit)


def test_the_angle_between_gradient_and_vector_is_kept(float64):
    z_e, z_q, gradient = torch.randn(3, 200, 6)
    z_e.requires_grad_()
    RotationTrick()(z_e, z_q).backward(gradient)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(z_e.grad, z_e, dim=1), cosine(gradient, z_q, dim=1))
    torch.testing.assert_close(z_e.grad.norm(dim=1), gradient.norm(dim=1) * z_q.norm(dim=1) / z_e.norm(dim=1))


def test_a_vector_without_direction_gets_the_copied_gradient(float64):
    z_q = torch.randn(3)
    assert torch.equal(jacobian(RotationTrick(), torch.zeros(3), z_q), torch.eye(3))
    opposite = jacobian(RotationTrick(), -z_q, z_q)
    assert opposite.isfinite().all()
    torch.testing.assert_close(opposite @ -z_q, z_q)
