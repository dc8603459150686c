"""The formulas of divergence.py, on log-probs: a bin of probability 0 has log-prob -inf.

p is the teacher, q the student. 0 log 0 = 0; mass where the other has none gives inf.
"""

import math

import torch
from independent import softplus


def log_probs(logits, temperature):
    """Log-softmax; the maximum goes first, so that the division does not round an offset."""
    return torch.log_softmax(centred(logits) / temperature, -1)


def centred(logits):
    """The logits less their maximum, a constant of each row that no softmax sees."""
    return logits - logits.detach().amax(-1, keepdim=True)


def combine(coefficients, tensors):
    """sum_i c_i z_i; a column that is -inf in every tensor stays -inf, whatever the signs."""
    forbidden = torch.stack([z == -math.inf for z in tensors]).all(0)
    total = sum(
        c * torch.where(forbidden, 0.0, centred(z))
        for c, z in zip(coefficients, tensors, strict=True)
    )
    return torch.where(forbidden, -math.inf, total)


def expectation(log_weights, values):
    """sum e^log_weights * values; bins of weight 0 give 0 and pass no gradient."""
    dead = log_weights == -math.inf
    weights = torch.where(dead, 0.0, log_weights).exp()
    return torch.where(dead, 0.0, weights * torch.where(dead, 0.0, values)).sum(-1)


def entropy(log_p):
    return -expectation(log_p, log_p)


def kl(log_a, log_b):
    dead = log_a == -math.inf
    return expectation(log_a, torch.where(dead, 0.0, log_a) - torch.where(dead, 0.0, log_b))


def mixture(weight, log_a, log_b):
    """log(weight a + (1 - weight) b)."""
    if weight in (0, 1):
        return log_a if weight == 1 else log_b
    dead = (log_a == -math.inf) & (log_b == -math.inf)
    log_a, log_b = (torch.where(dead, 0.0, x) for x in (log_a, log_b))
    mixed = torch.logaddexp(log_a + math.log(weight), log_b + math.log1p(-weight))
    return torch.where(dead, -math.inf, mixed)


def weighted(*parts):
    """A sum of weighted terms; a term of weight 0 is left out even where it is infinite."""
    return sum(weight * term() for weight, term in parts if weight != 0)


def forward_kl(p, q):
    return kl(p, q)


def reverse_kl(p, q):
    return kl(q, p)


def symmetric_kl(p, q, reverse):
    return weighted((1 - reverse, lambda: kl(p, q)), (reverse, lambda: kl(q, p)))


def jensen_shannon(p, q, beta):
    """losses 7, GKD: the ends are the plain divergences, not the limits of the interior (0)."""
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    m = mixture(beta, p, q)
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def skew_forward_kl(p, q, alpha):
    return kl(p, mixture(alpha, p, q))


def skew_reverse_kl(p, q, alpha):
    return kl(q, mixture(1 - alpha, p, q))


def total_variation(p, q):
    return (p.exp() - q.exp()).abs().sum(-1) / 2


def soft_cross_entropy(p, q):
    dead = p == -math.inf
    return -expectation(p, torch.where(dead, 0.0, q))


DIVERGENCES = {
    f.__name__: f
    for f in (
        forward_kl,
        reverse_kl,
        symmetric_kl,
        jensen_shannon,
        skew_forward_kl,
        skew_reverse_kl,
        total_variation,
        soft_cross_entropy,
    )
}


def expected_advantage(q, teachers, coefficients, temperature, beta, low, high):
    """papers_a 4: -sum_v q(v) A(v); the advantage is computed beforehand, without gradient."""
    parts = [c * log_probs(z, temperature) for c, z in zip(coefficients, teachers, strict=True)]
    advantage = beta * sum(parts)
    if low is not None or high is not None:
        advantage = advantage.clamp(low, high)
    return -expectation(q, advantage)


def align_distil(z_d, z_r, beta, ratio, doubled):
    """papers_a 5: the adaptive teacher's logits and the weight of each token."""
    gap = (log_probs(z_d, 1.0).exp() - log_probs(z_r, 1.0).exp()).abs().sum(-1, keepdim=True)
    alpha = ratio * (gap if doubled else gap / 2) + 1e-3
    return combine((1 + alpha, -alpha), (z_d, z_r)), beta / alpha[:, 0]


def distil(divergence, params, rule, student, teachers, temperatures):
    """Values of each token, entropies of student and teacher, log-probs of teacher and student."""
    columns = min(student.shape[1], *(z.shape[1] for _, z in teachers))
    q = log_probs(student[:, :columns], temperatures[0])
    coefficients, tensors = zip(*((c, z[:, :columns]) for c, z in teachers), strict=True)
    if divergence == "expected_advantage":
        values = expected_advantage(q, tensors, coefficients, temperatures[1], **params)
        return values, entropy(q), None, (None, q)
    weight = 1.0
    if rule["name"] == "align_distil":
        options = {key: value for key, value in rule.items() if key != "name"}
        combined, weight = align_distil(*tensors, **options)
    else:
        combined = combine(coefficients, tensors)
    p = log_probs(combined, temperatures[1])
    values = weight * DIVERGENCES[divergence](p, q, **params)
    return values, entropy(q), entropy(p), (p, q)


def sparse_bins(mode, student, ids, listed, temperature):
    """Log-probs of teacher and student over the bins that a divergence is taken of."""
    q = log_probs(student, temperature)
    if mode == "renormalised":
        listed = torch.log_softmax(listed, -1)
        return torch.full_like(q, -math.inf).scatter(1, ids, listed), q
    others = torch.ones_like(q, dtype=torch.bool).scatter(1, ids, False)
    rest = torch.where(others, q, -math.inf)
    # of nothing, logsumexp has no gradient
    empty = (rest == -math.inf).all(-1, keepdim=True)
    rest = torch.where(empty, 0.0, rest).logsumexp(-1, keepdim=True)
    rest = torch.where(empty, -math.inf, rest)
    remainder = 1 - listed.exp().sum(-1, keepdim=True)
    assert ((remainder == 0) | (remainder > 1e-4)).all()  # else rounding would decide
    return torch.cat([listed, remainder.log()], 1), torch.cat([q.gather(1, ids), rest], 1)


def label_log_probs(log_p, labels):
    """Log-prob of each label, 0 at ignored ones."""
    kept = labels != -100
    picked = log_p.gather(1, torch.where(kept, labels, 0)[:, None])[:, 0]
    return torch.where(kept, picked, 0.0)


def tdpo(policy, reference, labels, beta, alpha, variant, stop):
    """losses 2: the loss of one pair; each argument is (chosen, rejected)."""
    sums, ref_sums, kls = [], [], []
    for z, z_ref, y in zip(policy, reference, labels, strict=True):
        q, p = log_probs(z, 1.0), log_probs(z_ref, 1.0)
        sums.append(label_log_probs(q, y).sum())
        ref_sums.append(label_log_probs(p, y).sum())
        kls.append(torch.where(y != -100, kl(p, q), 0.0).sum())
    d = [s - r for s, r in zip(sums, ref_sums, strict=True)]
    fixed = stop(kls[0])
    gap = kls[1] - kls[0] if variant == 1 else alpha * (kls[1] - fixed)
    return {
        "loss": softplus(-beta * (d[0] - d[1] - gap)),
        "rewards": torch.stack([beta * (a + k) for a, k in zip(d, kls, strict=True)]),
        "log_probs": torch.stack(sums),
        "ref_log_probs": torch.stack(ref_sums),
        "sequence_kls": torch.stack(kls),
    }


def mixed_log_probs(coefficients, tensors, labels, temperature):
    return label_log_probs(log_probs(combine(coefficients, tensors), temperature), labels)
