"""The formulas of groups.py: the loss of one group of responses.

A formula takes the arrays of one group, its parameters, and `stop`, which detaches what the papers
hold fixed.
"""

import math

import torch
from independent import softplus


class Group:
    """The arrays of one group, with what the formulas share."""

    def __init__(self, arrays):
        self.given = arrays

    def __getattr__(self, name):
        return self.given[name]

    def __len__(self):
        return len(self.policy)

    @property
    def lengths(self):
        return self.tokens.clamp(min=1)

    @property
    def averages(self):
        return self.policy / self.lengths

    @property
    def log_ratios(self):
        return self.policy - self.reference

    @property
    def order(self):
        """Best score first, ties by position."""
        return torch.argsort(-self.scores, stable=True)

    def pairs(self):
        """Indices (i, j) with the score of i above that of j."""
        return torch.nonzero(self.scores[:, None] > self.scores[None, :], as_tuple=True)


def plackett_luce(x, p, stop):
    z = (p["beta"] * x.log_ratios)[x.order]
    return sum(torch.logsumexp(z[k:], 0) - z[k] for k in range(len(x)))


def pro(x, p, stop):
    """papers_a 2: stage k is the cross-entropy of item k among k.., scaled by the reward gaps."""
    s, r = x.averages[x.order], x.scores[x.order]
    total = 0 * s.sum()
    for k in range(len(x) - 1):
        gaps = r[k] - r[k + 1 :]
        own = s[k] * gaps.max()
        terms = [own.view(1), s[k + 1 :] * gaps]
        if p["epsilon"] > 0:
            terms.append(torch.full((1,), math.log(p["epsilon"]), dtype=s.dtype))
        total = total + torch.logsumexp(torch.cat(terms), 0) - own
    return total


def know_pat(x, p, stop):
    """papers_a 3, without the NLL term; the weights mu are fixed, 0 if all averages are equal."""
    s, r, n = x.averages[x.order], x.scores[x.order], len(x)
    low, high = s.min(), s.max()
    mu = stop((s - low) / torch.where(high > low, high - low, 1.0))
    total = 0 * s.sum()
    for i in range(n - 1):
        worse = s[i + 1 :]
        if p["form"] == "paper":
            worse = worse[r[i + 1 :] < r[i]]
        inner = softplus(worse).sum()
        if p["form"] == "code":
            inner = inner / (n - i - 1)
        total = total + mu[i] * (softplus(-s[i]) + inner)
    return total / (3 if p["form"] == "code" else max(n - 1, 1))


def rrhf(x, p, stop):
    i, j = x.pairs()
    return torch.relu(x.averages[j] - x.averages[i]).sum()


def descending_ranks(z):
    """Ranks from 1, largest first, ties by position."""
    order = torch.argsort(-z, stable=True)
    ranks = torch.empty_like(z)
    ranks[order] = torch.arange(1, len(z) + 1, dtype=z.dtype)
    return ranks


def lipo_lambda(x, p, stop):
    z = p["beta"] * x.log_ratios
    log = torch.log1p(stop(descending_ranks(z.detach())))
    discount = (1 if p["form"] == "paper" else math.log(2)) / log
    gain = torch.exp2(x.scores)
    i, j = x.pairs()
    weight = (gain[i] - gain[j]).abs() * (discount[i] - discount[j]).abs()
    total = (weight * softplus(-(z[i] - z[j]))).sum()
    return total * (len(x) if p["form"] == "rax" else 1)


def info_nca(x, p, stop):
    q = torch.softmax(x.scores / p["alpha"], 0)
    return -(q * torch.log_softmax(p["beta"] * x.log_ratios, 0)).sum()


def nca_list(x, p, stop):
    q = torch.softmax(x.scores / p["alpha"], 0)
    z = p["beta"] * x.log_ratios
    return (q * softplus(-z) + softplus(z) / len(x)).sum()


def steer_lm(x, p, stop):
    """papers_b 1.14 (3); reference is log Q', attribute log P(a|x,y), prior log P(y|x)."""
    w = torch.softmax(x.attribute + x.prior - x.reference, 0)
    b = x.policy - x.reference
    if p["form"] == "difference":
        loss = -((w - stop(torch.softmax(b, 0))) * x.policy).sum()
    elif p["form"] == "cross_entropy":
        loss = torch.logsumexp(b, 0) - (w * x.policy).sum()
    else:
        loss = -(w * torch.log_softmax(b, 0)).sum()
    return loss / (x.lengths.mean() if p["length_normalized"] else 1)


def all_pairs_bradley_terry(x, p, stop):
    i, j = x.pairs()
    return softplus(-(x.rewards[i] - x.rewards[j])).sum()


def trpa(x, p, stop):
    """papers_b 1.6: level 1 is the best; pairs of different levels, summed."""
    d = x.policy / x.lengths - x.reference / x.lengths
    i, j = torch.nonzero(x.levels[:, None] < x.levels[None, :], as_tuple=True)
    top = 1.0 if p["best"] == "level_1" else x.levels.min()
    k = torch.where(x.levels == top, p["anisotropy"], 1.0)
    return softplus(-p["beta"] * k[i] * (d[i] - d[j])).sum()


def trpa_fallback(x, p, stop):
    """papers_b 1.6, a micro-batch without pairs: each response by itself, here summed."""
    d = x.policy / x.lengths - x.reference / x.lengths
    return softplus(-torch.where(x.levels == 1, d, -d)).sum()


LOSSES = {
    "PlackettLuce": plackett_luce,
    "Pro": pro,
    "KnowPat": know_pat,
    "Rrhf": rrhf,
    "LipoLambda": lipo_lambda,
    "InfoNca": info_nca,
    "NcaList": nca_list,
    "SteerLm": steer_lm,
    "AllPairsBradleyTerry": all_pairs_bradley_terry,
    "Trpa": trpa,
    "TrpaFallback": trpa_fallback,
}


# ---- statistics without gradient ----------------------------------------------------------------


def advantages(groups, p):
    """Advantages of the rewards of each group."""
    out = []
    rewards = torch.cat(groups)
    for k, r in enumerate(groups):
        n = len(r)
        if n == 1 and p["singleton"] == "raw":
            a = r.clone()
        elif n == 1:
            a = torch.zeros_like(r)
        elif p["baseline"] == "leave_one_out":
            a = r - (r.sum() - r) / (n - 1)
        else:
            a = r - r.mean()
        if p["scale"] == "group":
            std = torch.tensor(1.0 if p["singleton"] == "raw" else 0.0, dtype=r.dtype)
            if n > 1:
                std = r.std(unbiased=p["unbiased"])
            a = a / (std + p["epsilon"])
        elif p["scale"] == "batch":
            a = a / (rewards.std(unbiased=p["unbiased"]) + p["epsilon"])
        out.append(a * p.get("factors", [1.0] * len(groups))[k])
    if p["scale"] == "whiten":
        flat = torch.cat(out)
        flat = (flat - flat.mean()) / (flat.std(unbiased=p["unbiased"]) + p["epsilon"])
        out = list(flat.split([len(r) for r in groups]))
    return torch.cat(out)


def ranks(groups, p):
    """Ranks from 1 in each group, largest first."""
    out = []
    for r in groups:
        above = (r[None, :] > r[:, None]).sum(1)
        same = (r[None, :] == r[:, None]).sum(1)
        if p["ties"] == "ordinal":
            values = descending_ranks(r)
        elif p["ties"] == "min":
            values = above + 1
        elif p["ties"] == "max":
            values = above + same
        elif p["ties"] == "average":
            values = above + (same + 1) / 2
        else:
            values = torch.tensor([len({y.item() for y in r if y > x}) + 1 for x in r])
        out.append(values.to(r.dtype))
    return torch.cat(out)


STATISTICS = {"advantages": advantages, "ranks": ranks}
