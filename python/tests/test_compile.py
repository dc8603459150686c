"""What torch.compile makes of the functions, and what torch says of the operators."""

import prefuse
import pytest
import torch
from prefuse import divergences
from prefuse.torch import (
    distillation_loss,
    objective_loss,
    preference_loss,
    sequence_log_probs,
    token_divergences,
    token_log_probs,
)

LABELS = torch.tensor([[1, 2, -100], [0, -100, 4], [3, 3, 3], [-100, 1, 0]])
REFERENCE = -2 * torch.rand(4, 3)
TEACHER = torch.randn(4, 3, 5)
DPO = prefuse.Dpo(0.1)
TERMS = [
    DPO,
    (0.1, prefuse.Term(prefuse.Nll(), sequences="chosen")),
    (0.01, prefuse.EntropyBonus()),
]

CALLS = {
    "token_log_probs": lambda x: token_log_probs(x, LABELS).sum(),
    "entropy": lambda x: sum(of.sum() for of in token_log_probs(x, LABELS, return_entropy=True)),
    "sequence_log_probs": lambda x: sequence_log_probs(x, LABELS)[0].sum(),
    "preference_loss": lambda x: preference_loss(DPO, x, LABELS, reference=REFERENCE).loss,
    "terms": lambda x: preference_loss(TERMS, x, LABELS, reference=REFERENCE).loss,
    "objective_loss": lambda x: objective_loss(DPO, x.sum((1, 2)), REFERENCE.sum(1)).loss,
    "distillation_loss": lambda x: distillation_loss(
        divergences.ForwardKl(), x, TEACHER, LABELS
    ).loss,
    "token_divergences": lambda x: token_divergences(divergences.ReverseKl(), x, TEACHER).sum(),
}


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", CALLS)
def test_one_graph(name, backend):
    if backend == "inductor" and name not in ("token_log_probs", "preference_loss"):
        pytest.skip(
            "the operators are opaque to both; two are enough to see the compiler's code work"
        )
    torch._dynamo.reset()

    def step(x):
        return CALLS[name](2.0 * x)

    logits = torch.randn(4, 3, 5, requires_grad=True)
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    found, expected = compiled(logits), step(logits)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(of, logits)[0] for of in (found, expected)]
    torch.testing.assert_close(*grads)


def test_in_place_is_refused():
    logits = torch.randn(4, 3, 5, requires_grad=True)

    def step(x):
        return token_log_probs(2.0 * x, LABELS, inplace=True).sum()

    with pytest.raises(Exception, match="inplace: expected False under torch.compile"):
        torch.compile(step, fullgraph=True, backend="aot_eager")(logits)


def arguments():
    operators = torch.ops.prefuse
    logits = torch.randn(4, 3, 5)
    # Tokens that do not count have NaN among their statistics, which opcheck takes for a difference.
    labels = LABELS.clamp(min=0)
    log_probs, maximum, log_sum, entropy = operators.token_log_probs(
        logits, labels, -100, 1.0, True, False, False
    )
    yield operators.token_log_probs, (logits, labels, -100, 1.0, True, True, True)
    yield (
        operators.token_log_probs,
        (logits[:, :-1], labels[:, 1:].contiguous(), -100, 0.5, False, False, False),
    )
    rows = (maximum, log_sum, torch.randn(4, 3), None, None)
    yield operators.logit_grads, (logits, labels, -100, 1.0, *rows)
    yield operators.logit_grads_, (logits.clone(), labels, -100, 1.0, *rows)
    by_entropy = (maximum, log_sum, torch.randn(4, 3), torch.randn(4, 3), entropy)
    yield operators.logit_grads, (logits, labels, -100, 1.0, *by_entropy)
    offsets = torch.tensor([0, 3, 6, 9, 12])
    yield operators.sequence_sums, (log_probs, labels, -100, None, offsets)
    yield operators.token_grads, (torch.randn(4), labels, -100, None, offsets)
    given = ([offsets, torch.randn(4, 3)], "cu_seqlens,reference", 5, 1.0)
    terms = [
        '{"objective":"Dpo","is_ranking":false,"parameters":{"beta":0.1},"weight":1.0,'
        '"reduction":"mean","sequences":"all","pairs":null}'
    ]
    text = f'{{"terms":[{terms[0]}],"pairs":"halves","ignore_index":-100}}'
    rows = (log_probs, maximum, log_sum, None, labels)
    yield operators.loss, (*rows, *given, text, 2, 1, False)
    sums = (torch.randn(4), None, [torch.randn(4).double()], "reference_sums", text, 2, 1)
    yield operators.scalar_loss, sums
    text = '{"divergence":"ForwardKl","temperatures":[1.0,1.0],"teacher":"Logits"}'
    teachers = [torch.randn(4, 3, 5)]
    for upstream, entropies in ((None, 2), (torch.randn(4, 3), 0)):
        yield (
            operators.divergence,
            (logits, teachers, None, None, labels, -100, text, upstream, entropies),
        )


def test_operators():
    for operator, given in arguments():
        torch.library.opcheck(operator.default, given)
