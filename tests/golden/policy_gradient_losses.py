"""The formulas of policy_gradient.py.

A formula takes the arrays of a batch of padded sequences, its parameters, and `stop`, which
detaches what the papers hold fixed. It gives the loss of every token [B, T]; formulas of a whole
sequence give the loss of every sequence [B].
"""

import math

import torch
from torch.nn.functional import logsigmoid


class Batch:
    """The arrays of a batch of padded sequences, with what the formulas share."""

    def __init__(self, arrays):
        self.given = arrays

    def __getattr__(self, name):
        return self.given[name]

    @property
    def advantage(self):
        """The advantage of each token's sequence."""
        return self.advantages.unsqueeze(1)

    @property
    def log_ratio(self):
        return self.log_probs - self.old

    def sums(self, values):
        """Sums over the tokens of each sequence that count."""
        return torch.where(self.mask > 0, values, 0.0).sum(1)

    def means(self, values):
        return self.sums(values) / self.mask.sum(1).clamp(min=1)


def clipped_surrogate(ratio, advantage, low, high, cap=None):
    """PPO: the smaller of the unclipped and the clipped gain, negated."""
    clipped = ratio.clamp(1 - low, 1 + high)
    unclipped = ratio if cap is None else ratio.clamp(max=cap)
    return -torch.minimum(unclipped * advantage, clipped * advantage)


# ---- losses of tokens ---------------------------------------------------------------------------


def ppo_clip(x, p, stop):
    limit = p.get("log_ratio_limit")
    log_ratio = x.log_ratio if limit is None else x.log_ratio.clamp(-limit, limit)
    losses = clipped_surrogate(
        log_ratio.exp(), x.advantage, p["epsilon_low"], p["epsilon_high"], p.get("ratio_cap")
    )
    if "dual_clip" in p:
        bounded = torch.minimum(losses, -p["dual_clip"] * x.advantage)
        losses = torch.where(x.advantage < 0, bounded, losses)
    return losses


def cispo(x, p, stop):
    low = 1 - p["epsilon_low"] if "epsilon_low" in p else None
    return -stop(x.log_ratio.exp().clamp(low, p["cap"])) * x.advantage * x.log_probs


def sapo(x, p, stop):
    tau = torch.where(x.advantage > 0, p["tau_positive"], p["tau_negative"])
    gate = torch.exp(logsigmoid(tau * (x.log_ratio.exp() - 1))) * 4 / tau
    return -gate * x.advantage


def reinforce(x, p, stop):
    return -x.advantage * x.log_probs


def log_prob_clip(x, p, stop):
    """P3O V3, addendum 1; the advantage is D w for a first response, -D w for a second one."""
    clipped = x.log_probs.clamp(x.old - p["epsilon"], x.old + p["epsilon"])
    return torch.maximum(-x.advantage * x.log_probs, -x.advantage * clipped)


def kl_penalty(x, p, stop):
    gap = x.reference - x.log_probs
    limit, output = p.get("input_clamp"), p.get("output_clamp")
    inside = torch.ones_like(gap, dtype=torch.bool) if limit is None else gap.abs() <= limit
    gap = gap if limit is None else gap.clamp(-limit, limit)
    if p["estimator"] == "K1":
        kl = -gap
    elif p["estimator"] == "K2":
        kl = gap**2 / 2
    else:
        kl = torch.expm1(gap) - gap
    importance = p.get("importance", "none")
    ratio = x.log_ratio.exp()
    if importance == "inside_output_clamp":
        kl = kl * torch.where(stop(inside), ratio, stop(ratio))
    kl = kl if output is None else kl.clamp(-output, output)
    if importance == "product":
        kl = kl * ratio
    elif importance == "detached":
        kl = kl * stop(ratio)
    return kl


def trust_region(x, p, stop):
    """TRPA, papers_b 1.6."""
    gap = x.old - x.log_probs
    return (torch.expm1(gap) - gap).clamp(-10, 10)


def entropy_bonus(x, p, stop):
    return -x.entropy


def vespo(x, p, stop):
    """TRL 1.16: the Gamma weight of the summed log-ratio, fixed, on advantage times log-prob."""
    log_w = x.sums(x.log_ratio.clamp(-20, 20)).clamp(math.log(1e-8), 20).unsqueeze(1)
    positive = x.advantage >= 0
    k = torch.where(positive, p["k_positive"], p["k_negative"])
    rate = torch.where(positive, p["lambda_positive"], p["lambda_negative"])
    weight = stop(torch.exp(rate + k * log_w - rate * log_w.exp()))
    return -weight * x.advantage * x.log_probs


TOKEN_LOSSES = {
    "PpoClip": ppo_clip,
    "Cispo": cispo,
    "Sapo": sapo,
    "Reinforce": reinforce,
    "LogProbClip": log_prob_clip,
    "KlPenalty": kl_penalty,
    "TrustRegion": trust_region,
    "EntropyBonus": entropy_bonus,
    "Vespo": vespo,
}


# ---- losses of sequences ------------------------------------------------------------------------


def gspo(x, p, stop):
    ratio = x.means(x.log_ratio).exp()
    return clipped_surrogate(ratio, x.advantages, p["epsilon_low"], p["epsilon_high"])


def rloo(x, p, stop):
    ratio = x.sums(x.log_ratio).exp()
    return clipped_surrogate(ratio, x.advantages, p["epsilon"], p["epsilon"])


def gmpo(x, p, stop):
    """Each log-ratio is clipped only where that makes the gain smaller."""
    low = torch.maximum(x.log_ratio, torch.tensor(-p["epsilon"], dtype=x.log_ratio.dtype))
    high = torch.minimum(x.log_ratio, torch.tensor(p["epsilon"], dtype=x.log_ratio.dtype))
    return -x.advantages * x.means(torch.where(x.advantage > 0, high, low)).exp()


SEQUENCE_LOSSES = {"Gspo": gspo, "Rloo": rloo, "Gmpo": gmpo}


# ---- P3O over pairs -----------------------------------------------------------------------------


def p3o(x, p, stop):
    """Addendum 1: the fixed coefficients and the losses of V1 and V2 of each pair."""
    low, high = 1 / p["ratio_limit"], p["ratio_limit"]
    gain = x.r_1 - x.r_2
    shown = (x.s_1, x.s_2) if p["kl_policy"] == "current" else (x.s_old_1, x.s_old_2)
    d = stop(gain - p["beta"] * ((shown[0] - x.ref_1) - (shown[1] - x.ref_2)))
    log_rho_1, log_rho_2 = x.s_1 - x.s_old_1, x.s_2 - x.s_old_2
    rho_1, rho_2 = log_rho_1.exp(), log_rho_2.exp()
    advantage_1 = stop(d * rho_2.clamp(low, high))
    advantage_2 = stop(-d * rho_1.clamp(low, high))
    w = stop((log_rho_1 + log_rho_2).exp().clamp(low, high))
    e = p["epsilon"]
    first = clipped_surrogate(rho_1, advantage_1, e, e)
    second = clipped_surrogate(rho_2, advantage_2, e, e)

    def joint(u, old):
        return torch.maximum(-d * w * u, -d * w * u.clamp(old - e, old + e)) / 2

    u = (x.s_1 - x.ref_1) - (x.s_2 - x.ref_2)
    old = (x.s_old_1 - x.ref_1) - (x.s_old_2 - x.ref_2)
    return {
        "D": d,
        "advantages_1": advantage_1,
        "advantages_2": advantage_2,
        "w": w,
        "v1_losses": (first + second) / 2,
        "v2_losses": joint(u, old),
        "v2_losses_without_reference": joint(x.s_1 - x.s_2, x.s_old_1 - x.s_old_2),
    }
