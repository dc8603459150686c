"""Distillation against torch in f64, and what is refused."""

import pytest
import torch
from conftest import DTYPES, EPSILON, check_refused, no_worse
from prefuse import divergences
from prefuse.torch import (
    AlignDistil,
    Combination,
    SparseTeacher,
    distillation_loss,
    token_divergences,
)
from torch.nn.functional import kl_div

KINDS = [
    divergences.ForwardKl(),
    divergences.ReverseKl(),
    divergences.SymmetricKl(0.3),
    divergences.JensenShannon(0.5),
    divergences.SkewForwardKl(0.1),
    divergences.SkewReverseKl(0.1),
    divergences.SoftCrossEntropy(),
]


def by_torch(student, teacher, temperature=1.0):
    ours, theirs = (torch.log_softmax(x / temperature, -1) for x in (student, teacher))
    return kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["token_mean", "sum", "sequence_mean", 3.0])
def test_forward_kl_is_no_worse_than_torch(dtype, reduction):
    student, teacher = (2 * torch.randn(2, 5, 517).to(dtype) for _ in range(2))
    labels = torch.zeros(2, 5, dtype=torch.int64)
    labels[0, 3:] = -100
    weights = torch.rand(2, 5)
    factors = weights * (labels != -100)
    if reduction == "sequence_mean":
        factors = factors / torch.tensor([[3.0], [5.0]]) / 2
    else:
        factors = factors / {"token_mean": 8, "sum": 1}.get(reduction, reduction)

    def run(call, dtype):
        of = student.to(dtype).clone().requires_grad_()
        value = call(of)
        (1.5 * value).backward()
        return value.detach(), of.grad

    def ours(of):
        return distillation_loss(
            divergences.ForwardKl(),
            of,
            teacher,
            labels,
            weights=weights,
            temperature=2.0,
            squared_temperature=True,
            reduction=reduction,
        ).loss

    def theirs(of):
        return 4.0 * (by_torch(of, teacher.to(of.dtype), 2.0) * factors).sum()

    found, other, truth = run(ours, dtype), run(theirs, dtype), run(theirs, torch.float64)
    no_worse(found[0], other[0], truth[0], 1e-5)
    no_worse(found[1], other[1], truth[1], EPSILON[dtype])


@pytest.mark.parametrize("divergence", KINDS, ids=lambda of: type(of).__name__)
def test_gradcheck(divergence):
    student = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    teachers = [torch.randn(2, 3, 7, dtype=torch.float64) for _ in range(2)]
    teacher = Combination([(1.5, teachers[0]), (-0.5, teachers[1])])
    assert torch.autograd.gradcheck(lambda x: token_divergences(divergence, x, teacher), student)
    for factor in (1.0, 2.5):
        assert torch.autograd.gradcheck(
            lambda x: factor * distillation_loss(divergence, x, teacher).loss, student
        )


def test_value_and_gradient_do_not_depend_on_the_way():
    student = torch.randn(3, 41, requires_grad=True)
    teacher = torch.randn(3, 41)
    found = distillation_loss(divergences.ReverseKl(), student, teacher, reduction="sum")
    values = token_divergences(divergences.ReverseKl(), student, teacher)
    assert torch.equal(found.values, values)
    (at_once,) = torch.autograd.grad(found.loss, student, retain_graph=True)
    (later,) = torch.autograd.grad(values.sum(), student)
    assert torch.equal(at_once, later)
    (again,) = torch.autograd.grad(2 * found.loss, student)
    torch.testing.assert_close(again, 2 * later)


def test_teachers_of_other_sizes_types_and_layouts():
    student = torch.randn(2, 4, 50, requires_grad=True)
    teacher = torch.randn(2, 4, 60).bfloat16()
    found = distillation_loss(divergences.ForwardKl(), student, teacher)
    expected = by_torch(student.double(), teacher.double()[..., :50])
    torch.testing.assert_close(found.values.double(), expected.detach(), rtol=1e-4, atol=1e-5)
    part = distillation_loss(divergences.ForwardKl(), student[:, :-1], teacher[:, :-1])
    assert torch.equal(part.values, found.values[:, :-1])
    (grads,) = torch.autograd.grad(part.loss, student)
    assert torch.all(grads[:, -1] == 0.0) and torch.all(grads[:, :-1].abs().sum(-1) > 0.0)
    with pytest.raises(ValueError, match=r"rows in the order of the student's"):
        distillation_loss(divergences.ForwardKl(), student[:, :-1], teacher[:, :-1].contiguous())


def test_a_teacher_of_itself():
    student = torch.randn(2, 3, 33, requires_grad=True)
    for divergence in (divergences.ForwardKl(), divergences.ReverseKl()):
        found = distillation_loss(divergence, student, student.detach())
        (grads,) = torch.autograd.grad(found.loss, student)
        assert found.loss.item() == 0.0 and torch.all(grads == 0.0)
        torch.testing.assert_close(found.student_entropy, found.teacher_entropy)


def test_sparse_teachers():
    student = torch.randn(2, 3, 33, requires_grad=True)
    teacher = torch.randn(2, 3, 33)
    log_probs, ids = torch.log_softmax(teacher, -1).topk(33)
    sparse = SparseTeacher(ids, log_probs.clamp(max=0.0), "renormalised")
    dense = token_divergences(divergences.ForwardKl(), student, teacher)
    found = token_divergences(divergences.ForwardKl(), student, sparse)
    torch.testing.assert_close(found, dense)
    grads = [torch.autograd.grad(of.sum(), student)[0] for of in (found, dense)]
    torch.testing.assert_close(*grads)
    few = SparseTeacher(ids[..., :4], log_probs[..., :4])
    part = distillation_loss(
        divergences.ForwardKl(), student[:, 1:], SparseTeacher(few.ids[:, 1:], few.log_probs[:, 1:])
    )
    whole = distillation_loss(divergences.ForwardKl(), student, few)
    assert torch.equal(part.values, whole.values[:, 1:])


def test_align_distil_and_advantages():
    student = torch.randn(4, 19, requires_grad=True)
    dpo, other = torch.randn(4, 19), torch.randn(4, 19)
    found = distillation_loss(divergences.ReverseKl(), student, AlignDistil(dpo, other))
    rows = [torch.log_softmax(of, -1) for of in (dpo, other)]
    variation = 0.5 * (rows[0].exp() - rows[1].exp()).abs().sum(-1)
    alpha = 10.0 * variation + 1e-3
    teacher = torch.log_softmax(dpo + alpha[:, None] * (dpo - other), -1)
    ours = torch.log_softmax(student, -1)
    expected = 0.1 / alpha * (ours.exp() * (ours - teacher)).sum(-1)
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-4, atol=1e-6)
    advantage = divergences.ExpectedAdvantage(0.5)
    found = distillation_loss(advantage, student, Combination([(1.0, dpo), (-1.0, other)]))
    advantages = 0.5 * (torch.log_softmax(dpo, -1) - torch.log_softmax(other, -1))
    expected = -(torch.softmax(student, -1) * advantages).sum(-1)
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-5, atol=1e-5)
    assert found.teacher_entropy is None


def test_every_token_counts_where_there_are_no_labels():
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    kl = divergences.ForwardKl()
    expected = distillation_loss(kl, student, teacher)
    for ignore_index in (0, 3):
        found = distillation_loss(kl, student, teacher, ignore_index=ignore_index)
        assert torch.equal(found.values, expected.values) and torch.all(found.values > 0.0)
    labels = torch.tensor([[0, 1, 2], [0, 0, 4]])
    found = distillation_loss(kl, student, teacher, labels, ignore_index=0)
    assert torch.equal(found.values, expected.values * (labels != 0))


def test_bad_packings():
    student, teacher = torch.randn(20, 7), torch.randn(20, 7)
    for offsets, message in [
        ([0, 25, 20], r"cu_seqlens\[2\]: expected at least 25, got 20"),
        ([5, 25], "cu_seqlens: expected to start at 0, got 5"),
        ([0, 3], "cu_seqlens: expected to end at the 20 tokens, got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            distillation_loss(
                divergences.ForwardKl(),
                student,
                teacher,
                reduction="sequence_mean",
                cu_seqlens=offsets,
            )
    with pytest.raises(TypeError):
        distillation_loss(
            divergences.ForwardKl(),
            student,
            teacher,
            reduction="sequence_mean",
            cu_seqlens=[0, 20.5],
        )


def test_bad_input():
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    kl = divergences.ForwardKl()
    ids = torch.zeros(2, 3, 1, dtype=torch.int64)
    listed = torch.zeros(2, 3, 1) - 0.1

    def sparse(ids=ids, listed=listed, remainder="bin"):
        return distillation_loss(kl, student, SparseTeacher(ids, listed, remainder))

    cases = [
        (
            "divergence: expected an instance of one of prefuse.divergences, got str",
            TypeError,
            lambda: distillation_loss("kl", student, teacher),
        ),
        (
            "teacher: expected a tensor, Combination",
            TypeError,
            lambda: distillation_loss(kl, student, [teacher]),
        ),
        (
            r"teacher_logits: expected shape \[2, 3\] \+ \[vocab\], got \[2, 2\]",
            ValueError,
            lambda: distillation_loss(kl, student, teacher[:, :2]),
        ),
        (
            "teacher_logits: expected float32",
            TypeError,
            lambda: distillation_loss(kl, student, teacher.long()),
        ),
        (
            "teacher_logits: expected a tensor without gradient",
            ValueError,
            lambda: distillation_loss(kl, student, teacher.clone().requires_grad_()),
        ),
        ("expected 0 to 4, got 5", ValueError, lambda: sparse(ids + 5)),
        (
            "expected each once, got 0 again",
            ValueError,
            lambda: sparse(ids.expand(2, 3, 2), listed.expand(2, 3, 2)),
        ),
        ("expected at most 0, got 0.5", ValueError, lambda: sparse(listed=listed + 0.6)),
        ("remainder: expected 'bin'", ValueError, lambda: sparse(remainder="rest")),
        (r"teacher's ids: expected shape \[2, 3, 'k'\]", ValueError, lambda: sparse(ids[0])),
        ("teacher's ids: expected int64", TypeError, lambda: sparse(listed)),
        (
            "entries of a sparse teacher: expected a number from 1",
            ValueError,
            lambda: sparse(ids[..., :0], listed[..., :0]),
        ),
        (
            "beta of a Jensen-Shannon",
            ValueError,
            lambda: distillation_loss(divergences.JensenShannon(1.5), student, teacher),
        ),
        (
            "temperature",
            ValueError,
            lambda: distillation_loss(kl, student, teacher, temperature=0.0),
        ),
        (
            "reduction: expected 'token_mean'",
            ValueError,
            lambda: distillation_loss(kl, student, teacher, reduction="max"),
        ),
        (
            "expected logits of 1 to 3 models",
            ValueError,
            lambda: distillation_loss(kl, student, Combination([(1.0, teacher)] * 4)),
        ),
        (
            r"parts: expected \(coefficient, logits\), got Tensor",
            TypeError,
            lambda: distillation_loss(kl, student, Combination([teacher, teacher])),
        ),
        (
            "expected a divisor from 1e-30 to 1e30, got 0.0",
            ValueError,
            lambda: distillation_loss(kl, student, teacher, reduction=0.0),
        ),
        (
            "weights: expected finite numbers",
            ValueError,
            lambda: distillation_loss(
                kl, student, teacher, weights=torch.full((2, 3), float("nan"))
            ),
        ),
        (
            "low of ExpectedAdvantage: expected a finite number, got nan",
            ValueError,
            lambda: distillation_loss(
                divergences.ExpectedAdvantage(1.0, low=float("nan")), student, teacher
            ),
        ),
        (
            "labels: expected shape",
            ValueError,
            lambda: distillation_loss(kl, student, teacher, ids),
        ),
    ]
    check_refused(cases)


def test_jensen_and_shannons_is_symmetric():
    student, teacher = torch.randn(6, 999), torch.randn(6, 999)
    values = [
        token_divergences(divergences.JensenShannon(), *of)
        for of in ((student, teacher), (teacher, student))
    ]
    assert torch.equal(*values)
