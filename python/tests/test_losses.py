"""Losses against torch in f64, and what is refused."""

import prefuse
import pytest
import torch
from conftest import DTYPES, EPSILON, check_refused, log_probs_of, no_worse
from prefuse.torch import (
    objective_loss,
    policy_loss,
    preference_loss,
    ranking_loss,
    reward_loss,
)
from torch.nn.functional import logsigmoid


def batch(sequences=4, length=6, vocab=131, dtype=torch.float32):
    logits = (3 * torch.randn(sequences, length, vocab)).to(dtype)
    labels = torch.randint(vocab, (sequences, length))
    labels[:, :2] = -100
    labels[-1, 4:] = -100
    return logits, labels


@pytest.mark.parametrize("dtype", DTYPES)
def test_dpo_is_no_worse_than_torch(dtype):
    logits, labels = batch(dtype=dtype)
    reference = log_probs_of(torch.randn(4, 6, 131, dtype=torch.float64), labels)
    weights = torch.rand(4, 6)

    def by_torch(logits, reference):
        sums = (log_probs_of(logits, labels) * weights).sum(-1)
        ratios = sums - (reference * weights).sum(-1)
        return -logsigmoid(0.3 * (ratios[:2] - ratios[2:])).mean()

    def ours(logits, reference):
        loss = prefuse.Dpo(0.3)
        return preference_loss(loss, logits, labels, reference=reference, weights=weights).loss

    def run(call, dtype):
        of = logits.to(dtype).clone().requires_grad_()
        value = call(of, reference.to(torch.float64 if dtype == torch.float64 else torch.float32))
        (7.0 * value).backward()
        return value.detach(), of.grad

    found, other = run(ours, dtype), run(by_torch, dtype)
    truth = run(by_torch, torch.float64)
    no_worse(found[0], other[0], truth[0], 1e-5)
    no_worse(found[1], other[1], truth[1], EPSILON[dtype])


def test_gradcheck():
    logits, labels = batch(vocab=5, length=4)
    logits = logits.double().requires_grad_()
    reference = torch.randn(4, 4, dtype=torch.float64)
    losses = [
        prefuse.Dpo(0.2, label_smoothing=0.1),
        (0.5, prefuse.Term(prefuse.Nll(), sequences="chosen", reduction="token_mean")),
        (0.1, prefuse.EntropyBonus()),
    ]

    def of(logits):
        return preference_loss(losses, logits, labels, reference=reference, temperature=0.9).loss

    assert torch.autograd.gradcheck(of, logits)
    advantages = torch.randn(4, 4, dtype=torch.float64)
    old = -torch.rand(4, 4, dtype=torch.float64)

    def policy(logits):
        terms = [prefuse.PpoClip(0.2, 0.28), (0.04, prefuse.KlPenalty())]
        options = {"reference": reference, "reduction": "sequence_mean"}
        return policy_loss(terms, logits, labels, advantages=advantages, old=old, **options).loss

    assert torch.autograd.gradcheck(policy, logits)
    values = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: objective_loss(prefuse.SimPo(2.0, 0.5), x).loss, values
    )
    assert torch.autograd.gradcheck(
        lambda x: reward_loss(prefuse.BradleyTerry(), x, margin=[0.1, 0.2]).loss, values
    )


def test_packed_and_padded_batches_agree():
    logits, labels = batch()
    keep = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0], [1] * 4 + [0] * 2]).bool()
    labels = labels.masked_fill(~keep, -100)
    reference = torch.randn(4, 6)
    padded = logits.clone().requires_grad_()
    expected = preference_loss(prefuse.Dpo(0.1), padded, labels, reference=reference)
    expected.loss.backward()
    offsets = torch.tensor([0, *keep.sum(1).cumsum(0).tolist()])
    packed = logits[keep].requires_grad_()
    for rows, of_tokens in [(packed, (labels[keep], reference[keep])), (packed[None], None)]:
        of_tokens = of_tokens or (labels[keep][None], reference[keep][None])
        found = preference_loss(
            prefuse.Dpo(0.1), rows, of_tokens[0], reference=of_tokens[1], cu_seqlens=offsets
        )
        assert torch.equal(found.loss, expected.loss)
        (grads,) = torch.autograd.grad(found.loss, packed)
        assert torch.equal(grads, padded.grad[keep])


def test_outputs():
    logits, labels = batch()
    sums = torch.randn(4) - 20.0
    terms = [prefuse.Dpo(0.1), (0.2, prefuse.Term(prefuse.Nll(), sequences="chosen"))]
    found = preference_loss(terms, logits, labels, reference=sums, return_entropy=True)
    dpo, nll = found.losses
    assert dpo.shape == nll.shape == (2,) and found.rewards[0].shape == (2, 2)
    torch.testing.assert_close(found.terms.sum().item(), found.loss.item())
    torch.testing.assert_close(found.terms[1].item(), 0.2 * nll.mean().item())
    assert found.metrics["rewards/margins"] == pytest.approx(
        found.metrics["rewards/chosen"] - found.metrics["rewards/rejected"]
    )
    assert found.log_probs.shape == found.entropy.shape == (4, 6)
    single = preference_loss(prefuse.Dpo(0.1), logits, labels, reference=sums)
    assert torch.equal(single.losses, dpo) and not single.losses.requires_grad
    listed = preference_loss(
        prefuse.Dpo(0.1), logits, labels, reference=sums.tolist(), pairs=[(0, 2), (1, 3)]
    )
    assert torch.equal(listed.loss, single.loss)
    order = torch.tensor([0, 2, 1, 3])
    interleaved = preference_loss(
        prefuse.Dpo(0.1), logits[order], labels[order], reference=sums[order], pairs="interleaved"
    )
    assert torch.equal(interleaved.loss, single.loss)


def test_the_default_device_is_not_asked():
    logits, labels = batch()
    options = {"reference": [0.5, -0.5, 0.25, 1.0], "margin": [0.1, 0.2]}
    expected = preference_loss(prefuse.Dpo(0.1), logits, labels, **options)
    offsets = [0, 6, 12, 18, 24]
    with torch.device("meta"):
        found = preference_loss(prefuse.Dpo(0.1), logits, labels, **options)
        packed = preference_loss(
            prefuse.Dpo(0.1), logits.flatten(0, 1), labels.flatten(), cu_seqlens=offsets, **options
        )
    assert found.loss == packed.loss == expected.loss and found.metrics == expected.metrics


def test_log_probs_go_on_to_other_losses():
    logits, labels = batch()
    logits.requires_grad_()
    found = preference_loss(prefuse.SimPo(2.0, 0.5), logits, labels)
    (both,) = torch.autograd.grad(
        found.loss + 0.1 * found.log_probs.sum(), logits, retain_graph=True
    )
    (first,) = torch.autograd.grad(found.loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(found.log_probs.sum(), logits)
    torch.testing.assert_close(both, first + 0.1 * second)


def test_kto_and_grpo():
    logits, labels = batch()
    reference = torch.randn(4, 6)
    kto = preference_loss(
        prefuse.Kto(0.1), logits, labels, reference=reference, soft_labels=[1, 0, 1, 0]
    )
    assert kto.metrics["count/chosen"] == 2.0 and kto.losses.shape == (4,)
    old = log_probs_of(logits, labels) - 0.1
    grpo = policy_loss(
        prefuse.PpoClip(0.2, 0.2), logits, labels, advantages=[1.0, -1.0, 0.5, 0.0], old=old
    )
    assert grpo.metrics["clip_ratio/high_mean"] == 0.0 and grpo.losses.shape == (4,)
    masked = policy_loss(
        prefuse.Reinforce(), logits, labels, advantages=[1.0] * 4, weights=torch.zeros(4, 6)
    )
    assert masked.loss.item() == 0.0


def test_in_place_is_the_same():
    logits, labels = batch()
    scale = torch.ones((), requires_grad=True)
    grads = []
    for inplace in (False, True):
        scale.grad = None
        found = preference_loss(prefuse.SimPo(2.0, 0.5), logits * scale, labels, inplace=inplace)
        found.loss.backward()
        grads.append(scale.grad)
    torch.testing.assert_close(*grads)


def test_bad_input():
    logits, labels = batch()
    reference = torch.zeros(4, 6)
    dpo = prefuse.Dpo(0.1)

    def loss(objective=dpo, of=logits, to=labels, **options):
        return preference_loss(objective, of, to, **{"reference": reference, **options})

    cases = [
        ("expected a batch with reference", ValueError, lambda: loss(reference=None)),
        (
            r"reference: expected shape \[4, 6\] by token or \[4\] by sequence, got \[3\]",
            ValueError,
            lambda: loss(reference=torch.zeros(3)),
        ),
        (
            "even number of sequences, got 3",
            ValueError,
            lambda: loss(of=logits[:3], to=labels[:3], reference=reference[:3]),
        ),
        ("pairs: expected 'halves'", ValueError, lambda: loss(pairs="thirds")),
        (
            "rejected of pair 0: expected a sequence below 4, got 9",
            ValueError,
            lambda: loss(pairs=[(0, 9)]),
        ),
        (
            "pairs: expected two sequences",
            ValueError,
            lambda: loss(pairs=torch.tensor([0, 1])),
        ),
        (
            "margin: expected a tensor without gradient",
            ValueError,
            lambda: loss(margin=torch.zeros(2, requires_grad=True)),
        ),
        (
            r"tokens: expected shape \[4\]",
            ValueError,
            lambda: objective_loss(dpo, reference[:, 0], [0.0] * 4, tokens=[1.0]),
        ),
        ("pairs: expected indices from 0 on, got -1", ValueError, lambda: loss(pairs=[(0, -1)])),
        ("pairs: expected an integer, got float", TypeError, lambda: loss(pairs=[(0.0, 1)])),
        (
            r"margin: expected shape \[2\], one number for each pair, got \[3\]",
            ValueError,
            lambda: loss(margin=[0.0] * 3),
        ),
        ("margin", ValueError, lambda: loss(prefuse.Ipo(0.1), margin=[0.1] * 2)),
        ("scores: expected a term", ValueError, lambda: loss(scores=[0.0] * 4)),
        ("reduction: expected 'mean'", ValueError, lambda: loss(reduction="max")),
        ("expected an objective", TypeError, lambda: loss(0.1)),
        ("expected an objective.*, got the class Dpo", TypeError, lambda: loss(prefuse.Dpo)),
        (
            r"term: expected an objective, a Term or \(weight, objective\).*, got float",
            TypeError,
            lambda: loss([(dpo, 0.2)]),
        ),
        ("beta of Dpo: expected a number, got str", TypeError, lambda: prefuse.Dpo("0.1")),
        ("ignore_index: expected an integer, got", TypeError, lambda: loss(ignore_index=0.0)),
        (
            "groups: expected a list of integers, got float",
            TypeError,
            lambda: loss(prefuse.PlackettLuce(0.1), groups=2.0),
        ),
        (
            "cu_seqlens: expected a list of integers, got int",
            TypeError,
            lambda: loss(of=logits[0], to=labels[0], cu_seqlens=6),
        ),
        (
            "reference: expected a list or tensor of numbers, got tuple",
            TypeError,
            lambda: loss(reference=(reference[:, 0], reference[:, 0])),
        ),
        (
            r"reference: .*\(or a tensor with one for each token\), got \[4, 6\]",
            ValueError,
            lambda: loss(reference=reference.tolist()),
        ),
        ("expected at least 1 term, got 0", ValueError, lambda: loss([])),
        (
            r"term: expected \(weight, objective\), got 3 items",
            ValueError,
            lambda: loss([(1, dpo, 2)]),
        ),
        (
            "groups: expected a size that divides the 4",
            ValueError,
            lambda: ranking_loss(
                prefuse.PlackettLuce(0.1), logits, labels, groups=3, reference=reference
            ),
        ),
        (
            "advantages: expected shape",
            ValueError,
            lambda: policy_loss(prefuse.Reinforce(), logits, labels, advantages=[1.0]),
        ),
        (
            "old: expected shape",
            ValueError,
            lambda: policy_loss(
                prefuse.PpoClip(0.2, 0.2), logits, labels, advantages=[1.0] * 4, old=reference[0]
            ),
        ),
        (
            "advantage of sequence 1: expected a finite number",
            ValueError,
            lambda: policy_loss(
                prefuse.Reinforce(), logits, labels, advantages=[1.0, float("nan"), 0.0, 0.0]
            ),
        ),
        (
            "policy_log_probs: expected shape",
            ValueError,
            lambda: objective_loss(dpo, reference, [0.0] * 4),
        ),
        (
            "rewards: expected a tensor, got list",
            TypeError,
            lambda: reward_loss(prefuse.BradleyTerry(), [1.0, 2.0]),
        ),
        (
            "unexpected argument 'reference'",
            TypeError,
            lambda: reward_loss(prefuse.BradleyTerry(), reference[0], reference=1),
        ),
        (
            "expected one of log-probs .*, got BradleyTerry",
            ValueError,
            lambda: loss(prefuse.BradleyTerry(), reference=None),
        ),
        (
            "expected one of whole sequences .*, got PpoClip",
            ValueError,
            lambda: reward_loss(prefuse.PpoClip(0.2, 0.2), reference[:, 0]),
        ),
        (
            "reduction of Dpo: expected 'mean', .*, got 'sequence_mean'",
            ValueError,
            lambda: loss(reduction="sequence_mean"),
        ),
        (
            "groups: expected sizes of at most 4 sequences together, got 5",
            ValueError,
            lambda: ranking_loss(
                prefuse.PlackettLuce(0.1), logits, labels, groups=[2, 3], reference=reference
            ),
        ),
        ("label of token", ValueError, lambda: loss(to=labels + 131)),
    ]
    check_refused(cases)


def test_what_could_be_by_token_or_by_sequence():
    logits, labels = torch.randn(4, 7), torch.randint(7, (4,))
    options = {"cu_seqlens": [0, 0, 3, 4, 4], "pairs": [(1, 2)]}
    sums = torch.randn(4)
    with pytest.raises(ValueError, match="which could be either"):
        preference_loss(prefuse.Dpo(0.1), logits, labels, reference=sums, **options)
    by_sequence = preference_loss(
        prefuse.Dpo(0.1), logits, labels, reference=sums.tolist(), **options
    )
    by_token = preference_loss(
        prefuse.Dpo(0.1), logits[None], labels[None], reference=sums[None], **options
    )
    assert by_sequence.loss != by_token.loss
    one_each = {"cu_seqlens": [0, 1, 2, 3, 4], "pairs": "halves"}
    preference_loss(prefuse.Dpo(0.1), logits, labels, reference=sums, **one_each)


def test_metrics_of_nan_are_nan():
    logits, labels = batch()
    found = preference_loss(prefuse.SimPo(2.0, 0.5), logits * float("nan"), labels)
    assert (
        found.loss.isnan() and found.metrics["rewards/margins"] != found.metrics["rewards/margins"]
    )
    assert "ppo_kl" not in found.metrics
