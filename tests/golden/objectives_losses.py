"""The formulas of objectives.py: per-unit losses and rewards of every objective.

A formula takes the arrays of its unit, its parameters, and `stop`, which detaches what the papers
hold fixed.
"""

import math

import torch
from independent import softplus
from torch.nn.functional import logsigmoid


def sigmoid(x):
    """The logistic function; its derivative keeps its digits in both tails, unlike torch's."""
    return torch.exp(logsigmoid(x))


def logistic(u, label):
    """Cross-entropy of sigmoid(u) against a label in [0, 1]."""
    return label * softplus(-u) + (1 - label) * softplus(u)


class Arrays:
    """The arrays of a unit, with what the formulas share."""

    def __init__(self, arrays):
        self.given = arrays

    def __getattr__(self, name):
        return self.given[name]

    def factor(self, p):
        """The objective's beta times that of the unit."""
        return p["beta"] * self.given.get("beta", 1.0)

    @property
    def margin(self):
        return self.given.get("margin", 0.0)

    def label(self, p):
        """The soft label after label smoothing."""
        w, e = self.given.get("soft_label", 1.0), p.get("label_smoothing", 0.0)
        return (1 - e) * w + e * (1 - w)

    @property
    def log_ratios(self):
        return (
            self.chosen_policy - self.chosen_reference,
            self.rejected_policy - self.rejected_reference,
        )

    @property
    def lengths(self):
        return self.chosen_tokens.clamp(min=1), self.rejected_tokens.clamp(min=1)

    @property
    def averages(self):
        nw, nl = self.lengths
        return self.chosen_policy / nw, self.rejected_policy / nl

    def h(self, p):
        """Difference of the scores of the two log-ratios, over the lengths if so asked."""
        dw, dl = (divergence_score(d, p) for d in self.log_ratios)
        nw, nl = self.lengths if p.get("length_normalized") else (1, 1)
        return dw / nw - dl / nl


def divergence_score(d, p):
    """losses.md, f-divergence DPO: what replaces the log-ratio."""
    kind = p.get("divergence", "ReverseKl")
    if kind == "ReverseKl":
        return d
    if kind == "ForwardKl":
        return -torch.expm1(-d)
    if kind == "JensenShannon":
        return math.log(2) + logsigmoid(d)
    a = p["alpha"]
    return d if a == 1 else torch.expm1((a - 1) * d) / (a - 1)


def implicit_rewards(x, p):
    """beta times the log-ratios."""
    dw, dl = x.log_ratios
    return {"reward_chosen": x.factor(p) * dw, "reward_rejected": x.factor(p) * dl}


# ---- pairs, margin of log-ratios ----------------------------------------------------------------


def dpo(x, p, stop):
    u = x.factor(p) * x.h(p) - x.margin
    return logistic(u, x.label(p)), implicit_rewards(x, p)


def robust(x, p, stop):
    u, e = x.factor(p) * x.h(p) - x.margin, p["label_smoothing"]
    return ((1 - e) * softplus(-u) - e * softplus(u)) / (1 - 2 * e), implicit_rewards(x, p)


def hinge(x, p, stop):
    u = x.factor(p) * x.h(p) - x.margin
    return torch.relu(1 - u), implicit_rewards(x, p)


def ipo(x, p, stop):
    return (x.h(p) - 1 / (2 * x.factor(p))) ** 2, implicit_rewards(x, p)


def exo_pair(x, p, stop):
    u, e = x.factor(p) * x.h(p), p["label_smoothing"]
    forward = sigmoid(u) * (logsigmoid(u) - math.log1p(-e))
    return forward + sigmoid(-u) * (logsigmoid(-u) - math.log(e)), implicit_rewards(x, p)


def disco_pop(x, p, stop):
    z = x.factor(p) * x.h(p)
    blend = z / p["tau"]
    exponential = torch.exp(logsigmoid(blend) - z)
    return sigmoid(-blend) * softplus(-z) + exponential, implicit_rewards(x, p)


def nca_pair(x, p, stop):
    rewards = implicit_rewards(x, p)
    rw, rl = rewards.values()
    return softplus(-rw) + 0.5 * softplus(rw) + 0.5 * softplus(rl), rewards


def bco_pair(x, p, stop):
    rewards = implicit_rewards(x, p)
    rw, rl = rewards.values()
    return softplus(-(rw - p["shift"])) + softplus(rl - p["shift"]), rewards


def apo_zero(x, p, stop):
    rewards = implicit_rewards(x, p)
    rw, rl = rewards.values()
    return sigmoid(-rw) + sigmoid(rl), rewards


def apo_down(x, p, stop):
    rewards = implicit_rewards(x, p)
    rw, rl = rewards.values()
    return sigmoid(rw) + sigmoid(-(rw - rl)), rewards


def sppo(x, p, stop):
    """papers_a 9; the scores are win probabilities."""
    dw, dl = x.log_ratios
    beta = x.factor(p)
    chosen = (dw - (x.chosen_score - 0.5) / beta) ** 2
    losses = 0.5 * (chosen + (dl - (x.rejected_score - 0.5) / beta) ** 2)
    return losses, implicit_rewards(x, p)


def sppo_hard(x, p, stop):
    dw, dl = x.log_ratios
    target = 1 / (2 * x.factor(p))
    return (dw - target) ** 2 + (dl + target) ** 2, implicit_rewards(x, p)


def rpo(x, p, stop):
    """losses.md, reward-aware RPO: a from the rewards, b from the policy."""
    u = x.factor(p) * x.h(p)
    t = p["reward_scale"] * (x.chosen_score - x.rejected_score)
    if p["form"] == "Squared":
        return (u - t) ** 2, implicit_rewards(x, p)
    a, b = (t, u) if p["form"] == "BackwardKl" else (u, t)
    up = sigmoid(a) * (logsigmoid(a) - logsigmoid(b))
    down = sigmoid(-a) * (logsigmoid(-a) - logsigmoid(-b))
    return up + down, implicit_rewards(x, p)


def irepo(x, p, stop):
    """papers_b 1.2 and addendum 2; the margin is the target logit."""
    u = x.factor(p) * x.h(p)
    ell = torch.zeros_like(u) + x.margin
    if p["probability_form"]:
        return (sigmoid(u) - sigmoid(ell)) ** 2, implicit_rewards(x, p)
    return (u - ell) ** 2, implicit_rewards(x, p)


def reliability_weighted(h, x, stop):
    """LCPO's two steps: the posterior of a clean label, fixed, then its cross-entropy."""
    eta = x.soft_label
    w = stop(sigmoid(h + torch.log(eta) - torch.log1p(-eta)))
    return logistic(h, w)


def lcpo(x, p, stop):
    """Addendum 4, table 1; IPO's difference may be one of averages, and so are the rewards then."""
    h, beta = x.h(p), x.factor(p)
    nw, nl = x.lengths if p["length_normalized"] else (1, 1)
    dw, dl = x.log_ratios
    rewards = {"reward_chosen": beta * dw / nw, "reward_rejected": beta * dl / nl}
    log_odds = beta * h if p["base"] == "Dpo" else 2 * h / beta
    return reliability_weighted(log_odds, x, stop), rewards


def lcpo_simpo(x, p, stop):
    aw, al = x.averages
    beta, gamma = x.factor(p), p["gamma"]
    m = beta * (aw - al)
    log_odds = logsigmoid(m - gamma) - logsigmoid(-m - gamma)
    rewards = {"reward_chosen": beta * aw, "reward_rejected": beta * al}
    return reliability_weighted(log_odds, x, stop), rewards


def lcpo_cpo(x, p, stop):
    log_odds = (x.factor(p) + 1) * (x.chosen_policy - x.rejected_policy)
    return reliability_weighted(log_odds, x, stop), free_rewards(x, p)


def p3o(x, p, stop):
    """Addendum 1, V2 of an ordered pair: D and the truncated ratio are the pair's weight."""
    u = x.log_ratios[0] - x.log_ratios[1]
    low, high = x.margin - p["epsilon"], x.margin + p["epsilon"]
    clipped = torch.minimum(torch.maximum(u, u * 0 + low), u * 0 + high)
    dw, dl = x.log_ratios
    return 0.5 * torch.maximum(-u, -clipped), {"reward_chosen": dw, "reward_rejected": dl}


def infi_fpo(x, p, stop):
    """papers_a 6; the scores are the fused average log-probs, the reference of the rewards."""
    aw, al = x.averages
    rw, rl = x.factor(p) * (aw - x.chosen_score), x.factor(p) * (al - x.rejected_score)
    u = x.factor(p) * ((aw - x.chosen_score) - (al - x.rejected_score)) - x.margin
    return logistic(u, x.label(p)), {"reward_chosen": rw, "reward_rejected": rl}


# ---- pairs, reference-free ----------------------------------------------------------------------


def free_rewards(x, p):
    """beta times the sums, or the averages where the loss compares those (losses.md, metrics)."""
    nw, nl = x.lengths if p.get("length_normalized") else (1, 1)
    beta = x.factor(p)
    return {
        "reward_chosen": beta * (x.chosen_policy / nw),
        "reward_rejected": beta * (x.rejected_policy / nl),
    }


def cpo(x, p, stop):
    u = x.factor(p) * (x.chosen_policy - x.rejected_policy) - x.margin
    losses = logistic(u, x.label(p)) - p["nll_weight"] * x.chosen_policy
    return losses, free_rewards(x, p)


def slic(x, p, stop):
    """losses.md; on averages it is RRHF's."""
    sw, sl = x.averages if p["length_normalized"] else (x.chosen_policy, x.rejected_policy)
    u = x.factor(p) * (sw - sl) - x.margin
    return torch.relu(p["delta"] - u), free_rewards(x, p)


def alpha_po(x, p, stop):
    """SimPO where alpha is absent or 0."""
    alpha, beta = p.get("alpha", 0.0), x.factor(p)
    rw, rl = (beta * (a if alpha == 0 else -torch.expm1(-alpha * a) / alpha) for a in x.averages)
    u = rw - rl - p["gamma"] - x.margin
    return logistic(u, x.label(p)), {"reward_chosen": rw, "reward_rejected": rl}


def log_odds(a):
    """log(p / (1 - p)) from log p."""
    return a - torch.log(-torch.expm1(a))


def orpo(x, p, stop):
    """losses.md; TRL's beta is the paper's lambda, so that a factor of beta is one of lambda."""
    aw, al = x.averages
    scale = x.factor({"beta": p["lambda"]})
    ratio = log_odds(aw) - log_odds(al)
    rewards = {"reward_chosen": scale * aw, "reward_rejected": scale * al}
    return scale * softplus(-ratio) - p["nll_weight"] * aw, rewards


# ---- single sequences ---------------------------------------------------------------------------


def nll(x, p, stop):
    """TRL logs no reward of it: 0."""
    n = x.tokens.clamp(min=1) if p["length_normalized"] else 1
    return -x.policy / n, {"reward_response": torch.zeros_like(x.policy)}


def log_ratio(x, p, stop):
    """SELM's optimism: the implicit reward without its beta."""
    d = x.policy - x.reference
    return d, {"reward_response": d}


def kto(x, p, stop):
    d = x.policy - x.reference
    u = p["beta"] * (d - p["baseline"])
    desirable = p["desirable_weight"] * sigmoid(-u)
    undesirable = p["undesirable_weight"] * sigmoid(u)
    losses = x.soft_label * desirable + (1 - x.soft_label) * undesirable
    return losses, {"reward_response": p["beta"] * d}


def pointwise_logistic(x, p, stop):
    """BCO's shift is the mean of the rewards, which are of averages if the loss is."""
    n = x.tokens.clamp(min=1) if p["length_normalized"] else 1
    reward = p["beta"] * (x.policy - x.reference) / n
    return logistic(reward - p["shift"], x.soft_label), {"reward_response": reward}


def poft(x, p, stop):
    """papers_a 13; the score is the opponents' mean average log-prob."""
    average = x.policy / x.tokens.clamp(min=1)
    losses = softplus(-(p["beta"] * (average - x.score) + p["gamma"]))
    return losses, {"reward_response": p["beta"] * average}


# ---- judged pairs and rewards -------------------------------------------------------------------


def entropy(u):
    """Entropy of a Bernoulli variable of logit u."""
    return sigmoid(u) * softplus(-u) + sigmoid(-u) * softplus(u)


def scir(x, p, stop):
    u = p["beta"] * x.h(p)
    rewards = implicit_rewards(x, p)
    for side in ("verdict_chosen", "verdict_rejected"):
        rewards[f"reward_{side}"] = x.given[f"{side}_policy"]
    v = x.verdict_chosen_policy - x.verdict_rejected_policy
    u = stop(u) if p["detach_policy"] else u
    v = stop(v) if p["detach_judge"] else v
    consistency = (sigmoid(u) - sigmoid(v)) * (u - v)
    return p["weight"] * consistency + p["entropy_weight"] * (entropy(u) + entropy(v)), rewards


def own_rewards(x):
    return {"reward_chosen": x.chosen, "reward_rejected": x.rejected}


def centre(x, p):
    return p["centering"] * (x.chosen + x.rejected) ** 2


def bradley_terry(x, p, stop):
    losses = logistic(x.chosen - x.rejected - x.margin, x.label(p))
    return losses + centre(x, p), own_rewards(x)


def eurus(x, p, stop):
    absolute = softplus(-x.chosen) + softplus(x.rejected)
    return softplus(-(x.chosen - x.rejected)) + p["absolute_weight"] * absolute, own_rewards(x)


def reward_tie(x, p, stop):
    """papers_a 7, reward model: ties, which are centered like all pairs."""
    return (x.chosen - x.rejected) ** 2 + centre(x, p), own_rewards(x)


def reward_gap(x, p, stop):
    return -(x.chosen - x.rejected) / p["beta"], own_rewards(x)


def reward_regression(x, p, stop):
    return (x.prediction - x.target) ** 2, {"reward_response": x.prediction}


LOSSES = {
    "Dpo": dpo,
    "Robust": robust,
    "Hinge": hinge,
    "Ipo": ipo,
    "ExoPair": exo_pair,
    "DiscoPop": disco_pop,
    "NcaPair": nca_pair,
    "BcoPair": bco_pair,
    "ApoZero": apo_zero,
    "ApoDown": apo_down,
    "Sppo": sppo,
    "SppoHard": sppo_hard,
    "Rpo": rpo,
    "Irepo": irepo,
    "Lcpo": lcpo,
    "LcpoSimPo": lcpo_simpo,
    "LcpoCpo": lcpo_cpo,
    "InfiFpo": infi_fpo,
    "P3o": p3o,
    "Cpo": cpo,
    "Slic": slic,
    "SimPo": alpha_po,
    "AlphaPo": alpha_po,
    "Orpo": orpo,
    "Nll": nll,
    "LogRatio": log_ratio,
    "Kto": kto,
    "PointwiseLogistic": pointwise_logistic,
    "Poft": poft,
    "Scir": scir,
    "BradleyTerry": bradley_terry,
    "Eurus": eurus,
    "RewardTie": reward_tie,
    "RewardGap": reward_gap,
    "RewardRegression": reward_regression,
}
