"""What torch.compile makes of the functions, and what torch says of the operators."""

from typing import NamedTuple

import prefuse
import pytest
import torch
from functorch.compile import make_boxed_func
from prefuse import divergences
from prefuse.torch import (
    AlignDistil,
    Combination,
    SparseTeacher,
    distillation_loss,
    entropies,
    objective_loss,
    policy_loss,
    preference_loss,
    ranking_loss,
    reward_loss,
    sequence_log_probs,
    token_divergences,
    token_log_probs,
)
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd


class Batch(NamedTuple):
    labels: Tensor
    reference: Tensor
    teacher: Tensor


def batch(sequences=4, length=3, vocab=5):
    labels = torch.randint(vocab, (sequences, length))
    labels[:, 0] = -100
    teacher = torch.randn(sequences, length, vocab)
    logits = torch.randn(sequences, length, vocab, requires_grad=True)
    return logits, Batch(labels, -2 * torch.rand(sequences, length), teacher)


DPO = prefuse.Dpo(0.1)
NLL = prefuse.Term(prefuse.Nll(), sequences="chosen")
TERMS = [DPO, (0.1, NLL), (0.01, prefuse.EntropyBonus())]
POLICY = [prefuse.PpoClip(0.2, 0.28), (0.04, prefuse.KlPenalty())]
RANKING, REWARD = prefuse.PlackettLuce(0.1), prefuse.BradleyTerry()
FORWARD, JENSEN_SHANNON = divergences.ForwardKl(), divergences.JensenShannon(0.3)


def policy(objective, x, of):
    given = {"advantages": of.teacher[:, 0, 0], "old": of.reference, "reference": of.reference}
    return policy_loss(objective, x, of.labels, **given, reduction="sequence_mean").loss


def packed(x, of):
    given = {"reference": of.reference.sum(1), "cu_seqlens": torch.arange(len(x) + 1) * x.shape[1]}
    return preference_loss(DPO, x.flatten(0, 1), of.labels.flatten(), **given).loss


def distilled(divergence, x, of, teacher=None, **options):
    teacher = of.teacher if teacher is None else teacher
    return distillation_loss(divergence, x, teacher, of.labels, **options).loss


def listed(x, of):
    """From a file of top entries."""
    log_probs, ids = of.teacher.log_softmax(-1).topk(3)
    return distilled(FORWARD, x, of, SparseTeacher(ids, log_probs))


# The operators of the forward, and the call.
TOKENS, LOSS = ["token_log_probs"], ["token_log_probs", "loss"]
SUMS, SCALAR, DIVERGENCE = ["token_log_probs", "sequence_sums"], ["scalar_loss"], ["divergence"]
CALLS = {
    "token_log_probs": (TOKENS, lambda x, of: token_log_probs(x, of.labels).sum()),
    "slice": (TOKENS, lambda x, of: token_log_probs(x[:, :-1], of.labels[:, 1:]).sum()),
    "entropies": (TOKENS, lambda x, of: entropies(x).sum()),
    "sequence_log_probs": (SUMS, lambda x, of: sequence_log_probs(x, of.labels)[0].sum()),
    "preference_loss": (
        LOSS,
        lambda x, of: preference_loss(DPO, x, of.labels, reference=of.reference).loss,
    ),
    "packed": (LOSS, packed),
    "terms": (
        LOSS,
        lambda x, of: preference_loss(TERMS, x, of.labels, reference=of.reference).loss,
    ),
    "ranking_loss": (
        LOSS,
        lambda x, of: ranking_loss(RANKING, x, of.labels, groups=2, reference=of.reference).loss,
    ),
    "policy_loss": (LOSS, lambda x, of: policy(POLICY, x, of)),
    "objective_loss": (
        SCALAR,
        lambda x, of: objective_loss(DPO, x.sum((1, 2)), of.reference.sum(1)).loss,
    ),
    "reward_loss": (SCALAR, lambda x, of: reward_loss(REWARD, x.sum((1, 2))).loss),
    "distillation_loss": (DIVERGENCE, lambda x, of: distilled(FORWARD, x, of)),
    "sequence_mean": (
        DIVERGENCE,
        lambda x, of: distilled(JENSEN_SHANNON, x, of, reduction="sequence_mean"),
    ),
    "combination": (
        DIVERGENCE,
        lambda x, of: distilled(
            FORWARD, x, of, Combination([(2.0, of.teacher), (-1.0, 0.5 * of.teacher)])
        ),
    ),
    "align_distil": (
        DIVERGENCE,
        lambda x, of: distilled(FORWARD, x, of, AlignDistil(of.teacher, 0.5 * of.teacher)),
    ),
    "sparse_teacher": (DIVERGENCE, listed),
    "token_divergences": (
        DIVERGENCE,
        lambda x, of: token_divergences(FORWARD, x, of.teacher).sum(),
    ),
}


class Recorded:
    """A call, compiled, and our operators in the forward of each graph that was made of it."""

    def __init__(self, call, **options):
        torch._dynamo.reset()
        self.operators = []
        backend = aot_autograd(fw_compiler=self.record, bw_compiler=self.plain)
        self.call = torch.compile(call, fullgraph=True, backend=backend, **options)

    def plain(self, graph, _):
        return make_boxed_func(graph.forward)

    def record(self, graph, given):
        names = [str(node.target).split(".") for node in graph.graph.nodes]
        self.operators.append([name[1] for name in names if name[0] == "prefuse"])
        return self.plain(graph, given)


def check(compiled, call, logits, *given):
    found, expected = compiled(logits, *given), call(logits, *given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*[torch.autograd.grad(of, logits)[0] for of in (found, expected)])


@pytest.mark.parametrize("name", ["token_log_probs", "preference_loss", "terms"])
def test_the_compilers_code(name):
    torch._dynamo.reset()
    _, of_call = CALLS[name]

    def call(x, of):
        return of_call(2.0 * x, of)

    compiled = torch.compile(call, fullgraph=True)
    for sequences in (4, 6, 8):
        check(compiled, call, *batch(sequences))


@pytest.mark.parametrize("name", CALLS)
def test_one_graph_for_all_shapes(name):
    operators, of_call = CALLS[name]

    def call(x, of):
        return of_call(2.0 * x, of)

    compiled = Recorded(call, dynamic=True)
    for shape in [(4, 3, 5), (6, 5, 5), (8, 3, 9), (12, 4, 7)]:
        check(compiled.call, call, *batch(*shape))
    assert compiled.operators == [operators]


def weighed(x, of, weight):
    return preference_loss([DPO, (weight, NLL)], x, of.labels, reference=of.reference).loss


def scheduled(x, of, objective):
    return preference_loss(objective, x, of.labels, reference=of.reference).loss


# The call, and what it is given at each step.
SCHEDULES = {
    "weight": (weighed, lambda step: 0.1 * step),
    "integer_weight": (weighed, lambda step: step),
    "beta": (scheduled, lambda step: prefuse.Dpo(0.1 * step, label_smoothing=0.01 * step)),
    "terms": (scheduled, lambda step: [prefuse.Dpo(0.3 * step), (0.1 * step, NLL), NLL]),
    "both_weights": (
        scheduled,
        lambda step: [DPO, (0.1 * step, prefuse.Term(prefuse.Nll(), 0.2 * step))],
    ),
    "reduction": (
        lambda x, of, number: preference_loss(NLL.objective, x, of.labels, reduction=number).loss,
        lambda step: 0.5 * step,
    ),
    "policy_loss": (
        lambda x, of, objective: policy(objective, x, of),
        lambda step: [prefuse.PpoClip(0.01 * step, 0.2), (0.1 * step, prefuse.KlPenalty())],
    ),
    "ranking_loss": (
        lambda x, of, ranking: ranking_loss(
            ranking, x, of.labels, groups=2, reference=of.reference
        ).loss,
        lambda step: prefuse.PlackettLuce(0.1 * step),
    ),
    "reward_loss": (
        lambda x, of, weight: reward_loss([(weight, REWARD)], x.sum((1, 2))).loss,
        lambda step: 0.1 * step,
    ),
    "objective_loss": (
        lambda x, of, objective: objective_loss(objective, x.sum((1, 2)), [0.0] * 4).loss,
        lambda step: prefuse.Dpo(0.1 * step),
    ),
    "divergence": (
        lambda x, of, divergence: distilled(divergence, x, of),
        lambda step: divergences.JensenShannon(0.05 * step),
    ),
    "temperatures": (
        lambda x, of, number: distilled(
            FORWARD, x, of, temperature=number, squared_temperature=True
        ),
        lambda step: 0.5 * step,
    ),
    "coefficient": (
        lambda x, of, number: distilled(FORWARD, x, of, Combination([(number, of.teacher)])),
        lambda step: 0.5 * step,
    ),
}


@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("name", SCHEDULES)
def test_scheduled_numbers_are_not_constants(name, dynamic):
    call, at = SCHEDULES[name]
    compiled = Recorded(call, dynamic=dynamic)
    # Two graphs, of constants and of variables, at most; torch gives up after eight.
    for step in range(1, 11):
        check(compiled.call, call, *batch(), at(step))
    assert len(compiled.operators) <= 2


def test_in_place_is_refused():
    def call(x, of):
        return token_log_probs(2.0 * x, of.labels, inplace=True).sum()

    with pytest.raises(Exception, match="inplace: expected False under torch.compile"):
        Recorded(call).call(*batch())


def arguments():
    operators = torch.ops.prefuse
    logits = torch.randn(4, 3, 5)
    # Tokens that do not count have NaN among their statistics, which opcheck takes for a difference.
    labels = torch.randint(5, (4, 3))
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
        '{"objective":"Dpo","is_ranking":false,"parameters":{"beta":%r},"weights":[%r],'
        '"reduction":"mean","sequences":"all","pairs":null}'
    ]
    text = f'{{"terms":[{terms[0]}],"pairs":"halves","ignore_index":-100}}'
    rows = (log_probs, maximum, log_sum, None, labels)
    floats = torch.tensor([0.1, 1.0], dtype=torch.float64)
    yield operators.loss, (*rows, *given, text, floats, 2, 1, False)
    sums = (torch.randn(4), None, [torch.randn(4).double()], "reference_sums", text, floats, 2, 1)
    yield operators.scalar_loss, sums
    text = '{"divergence":"ForwardKl","temperatures":[%r,%r],"teacher":"Logits"}'
    teachers = [torch.randn(4, 3, 5)]
    for upstream, count in ((None, 2), (torch.randn(4, 3), 0)):
        yield (
            operators.divergence,
            (logits, teachers, None, None, labels, -100, text, floats, upstream, count),
        )


def test_operators():
    for operator, given in arguments():
        torch.library.opcheck(operator.default, given)
