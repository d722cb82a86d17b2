"""Distillation: the loss by hand, and that a student comes near its teacher."""

import math

import pytest
import torch
from compress.small import small_gpt, some_batches

from minigpt.compress.distill import distill, distillation_loss
from minigpt.training.pretrain import next_token
from minigpt.training.stage import Stage


def test_two_tokens_by_hand():
    """T = 2. Teacher (2 ln 3, 0) is p = (3/4, 1/4) at T; student (0, 0) is q = (1/2, 1/2).

    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812;  T² KL = 0.523248;  cross-entropy = ln 2 = 0.693147
    share 1/4: 3/4 · 0.693147 + 1/4 · 0.523248 = 0.650672                           (Hinton et al. 2015, section 2)
    """
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    loss, divergence = distillation_loss(student, teacher, torch.tensor([0]), temperature=2.0, share=0.25)
    torch.testing.assert_close(divergence, torch.tensor(0.523248))
    torch.testing.assert_close(loss, torch.tensor(0.650672))


def test_an_ignored_token_counts_in_neither_part():
    """Padding would otherwise teach."""
    student, teacher = torch.randn(2, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([[1, -100, 4]])
    whole = distillation_loss(student, teacher, targets, temperature=1.5, share=0.5)
    kept = [0, 2]
    part = distillation_loss(student[:, kept], teacher[:, kept], targets[:, kept], temperature=1.5, share=0.5)
    torch.testing.assert_close(whole, part)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_share(share):
    """0: the next token alone. 1: a student that is its teacher has nothing to learn."""
    logits, targets = torch.randn(4, 7), torch.tensor([0, 1, 2, 3])
    loss, divergence = distillation_loss(logits, logits, targets, temperature=3.0, share=share)
    expected = torch.tensor(0.0) if share else torch.nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(divergence, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_temperature_does_not_change_the_size_of_the_gradient():
    """That is what T² is for: for small logits both are (student - teacher) / V to first order."""
    teacher = 0.01 * torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    gradients = []
    for temperature in (1.0, 10.0):
        student = torch.zeros(3, 8, requires_grad=True)
        distillation_loss(student, teacher, torch.tensor([0, 1, 2]), temperature=temperature, share=1.0)[0].backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=1e-5)


def test_another_vocabulary_is_refused():
    """Broadcasting would hide it."""
    with pytest.raises(ValueError, match="must be alike"):
        distillation_loss(torch.zeros(2, 5), torch.zeros(2, 6), torch.tensor([0, 1]), temperature=1.0, share=0.5)


def test_a_student_comes_nearer_to_its_teacher_who_learns_nothing():
    """Twenty steps of plain descent on one batch."""
    teacher, student, batch = small_gpt(3), small_gpt(4, n_layer=1), some_batches(1)[0]
    stage = distill(Stage(student, None, next_token, None, None), teacher, temperature=1.0, share=1.0)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    optimizer, seen = torch.optim.Adam(student.parameters(), lr=1e-2), []
    for _ in range(20):
        loss = stage.objective(student, batch)
        loss.value.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float(loss.metrics["divergence"]))
    assert seen[-1] < 0.5 * seen[0]
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in teacher.named_parameters())
