"""The inputs of objectives.py: arrays per unit, by name."""

import torch

F64 = torch.float64
BASES = ("random", "wide", "edge", "extreme")


def vector(values):
    return torch.tensor(values, dtype=F64)


class Draw:
    """Seeded numbers with four decimals."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low, high, n=6):
        x = torch.rand(n, generator=self.generator, dtype=F64)
        return (low + (high - low) * x).round(decimals=4)

    def normal(self, scale, n=6):
        x = torch.randn(n, generator=self.generator, dtype=F64)
        return (scale * x).round(decimals=4)

    def tokens(self, low, high, n=6):
        return torch.randint(low, high, (n,), generator=self.generator).to(F64)


def sums(draw, tokens):
    """Sums of log-probs of sequences of so many tokens."""
    return -(tokens * draw.uniform(0.3, 2.5, len(tokens))).round(decimals=4)


SIGNS_CHOSEN = vector([1, -1, 1, -1, 1, 0])
SIGNS_REJECTED = vector([-1, 1, 1, -1, 0, -1])


def log_probs(base):
    """Sums, reference sums and token counts of chosen and rejected responses."""
    draw = Draw(100 + ("near_certain", *BASES).index(base))
    if base == "near_certain":  # average log-probs near 0, around -ln 2, and far below
        chosen = vector([-1e-12, -3e-9, -0.69, -1e-6, -700.0, -0.7])
        rejected = vector([-1e-3, -1e-10, -0.7, -40.0, -1e-7, -800.0])
        zeros, ones = torch.zeros_like(chosen), torch.ones_like(chosen)
        return chosen, rejected, zeros - 1, zeros - 2, ones, ones
    if base == "edge":
        # nothing scored; empty chosen; empty rejected; identical responses; policy = reference;
        # log-ratios 1.5 and -0.5, so that 0.5 * h is 1
        tokens_chosen, tokens_rejected = vector([0, 0, 1, 1, 4, 1]), vector([0, 5, 0, 1, 7, 2])
        chosen = vector([0, 0, -0.75, -1.5, -5.25, -0.5])
        rejected = vector([0, -6.5, 0, -1.5, -9.75, -2.5])
        ratios = vector([0, 0, 0.5, 0.25, 0, 1.5]), vector([0, -1.25, 0, 0.25, 0, -0.5])
    elif base == "extreme":
        tokens_chosen, tokens_rejected = draw.tokens(20, 60), draw.tokens(20, 60)
        near_chosen, near_rejected = sums(draw, tokens_chosen), sums(draw, tokens_rejected)
        chosen = near_chosen - 1000 * (SIGNS_CHOSEN < 0)
        rejected = near_rejected - 1000 * (SIGNS_REJECTED < 0)
        ratios = 1000 * SIGNS_CHOSEN, 1000 * SIGNS_REJECTED
    else:
        tokens_chosen, tokens_rejected = draw.tokens(3, 25), draw.tokens(3, 25)
        chosen, rejected = sums(draw, tokens_chosen), sums(draw, tokens_rejected)
        ratios = draw.normal(1.5), draw.normal(1.5)
        if base == "wide":
            chosen, rejected = chosen - 30, rejected - 30
            ratios = 30 * SIGNS_CHOSEN, 30 * SIGNS_REJECTED
    references = [
        (s - d).round(decimals=4) for s, d in zip((chosen, rejected), ratios, strict=True)
    ]
    return chosen, rejected, *references, tokens_chosen, tokens_rejected


def scores(kind, base):
    """Scores of chosen and rejected responses."""
    draw = Draw(200 + ("win", "reward", "average").index(kind))
    if kind == "win":
        chosen, rejected = draw.uniform(0.02, 0.98), draw.uniform(0.02, 0.98)
        same = 0.5
    elif kind == "reward":
        chosen, rejected = draw.uniform(-3, 3), draw.uniform(-3, 3)
        same = 1.25
        if base == "extreme":
            return 1000 * SIGNS_REJECTED, 500 * SIGNS_CHOSEN
    else:
        chosen, rejected = draw.uniform(-4, -0.05), draw.uniform(-4, -0.05)
        same = -0.5
    if base == "edge":
        chosen[3], rejected[3] = same, same
    return chosen, rejected


OPTIONS = {
    "beta": Draw(300).uniform(0.3, 2.5),
    "margin": Draw(301).normal(0.8),
    "soft_label": vector([1.0, 0.9, 0.25, 0.0, 0.5, 0.62]),
    "reliability": vector([0.9, 0.55, 0.99, 0.2, 0.75, 0.5]),
    "exact_reliability": vector([1.0, 0.5, 1.0, 0.5, 1.0, 0.5]),
}


def pair(base, kind, options):
    """A pair input; `options` are the per-pair inputs given."""
    chosen, rejected, ref_chosen, ref_rejected, tokens_chosen, tokens_rejected = log_probs(base)
    score_chosen, score_rejected = scores(kind, base)
    arrays = {
        "chosen_policy": chosen,
        "rejected_policy": rejected,
        "chosen_reference": ref_chosen,
        "rejected_reference": ref_rejected,
        "chosen_tokens": tokens_chosen,
        "rejected_tokens": tokens_rejected,
        "chosen_score": score_chosen,
        "rejected_score": score_rejected,
    }
    for option in options:
        key = "soft_label" if option.endswith("reliability") else option
        arrays[key] = OPTIONS[option]
    return arrays


def sequence(base, kind, options):
    chosen, _, ref_chosen, _, tokens, _ = log_probs(base)
    score, _ = scores("average", base)
    return {
        "policy": chosen,
        "reference": ref_chosen,
        "tokens": tokens,
        "score": score,
        "soft_label": vector([1, 0, 1, 0, 0.3, 0.85]),
    }


def judged_pair(base, kind, options):
    chosen, rejected, ref_chosen, ref_rejected, *_ = log_probs(base)
    draw = Draw(400)
    far = {"wide": 30.0, "extreme": 1000.0}.get(base)
    if far:  # with and against the policy's own preference
        up = vector([1, 1, 0, 1, 0, 0])
        verdicts = -far * (1 - up) - 0.0625, -far * up - 0.0625
    else:
        verdicts = draw.uniform(-3, -0.05), draw.uniform(-3, -0.05)
    if base == "edge":
        verdicts[1][:4] = verdicts[0][:4]
        verdicts[0][5] = 0.0
    return {
        "chosen_policy": chosen,
        "rejected_policy": rejected,
        "chosen_reference": ref_chosen,
        "rejected_reference": ref_rejected,
        "verdict_chosen_policy": verdicts[0],
        "verdict_rejected_policy": verdicts[1],
    }


def reward_values(base, draw):
    """Two rewards per unit."""
    if base == "edge":
        return vector([0, 1.5, -2.5, 0, 3, 1]), vector([0, 1.5, -2.5, 1, 0, -1])
    if base == "random":
        return draw.normal(1.5), draw.normal(1.5)
    far = 30.0 if base == "wide" else 1000.0
    return far * SIGNS_CHOSEN + 0.25, far * SIGNS_REJECTED - 0.5


def reward_pair(base, kind, options):
    chosen, rejected = reward_values(base, Draw(500))
    return {"chosen": chosen, "rejected": rejected} | {key: OPTIONS[key] for key in options}


def reward(base, kind, options):
    prediction, target = reward_values(base, Draw(501))
    return {"prediction": prediction, "target": target}


UNITS = {
    "pair": pair,
    "sequence": sequence,
    "judged_pair": judged_pair,
    "reward_pair": reward_pair,
    "reward": reward,
}


def make(unit, base, kind="reward", options=()):
    """The name and the arrays of an input."""
    scored = f"/{kind}" if unit == "pair" else ""
    name = f"{unit}/{base}{scored}" + "".join(f"+{option}" for option in options)
    return name, UNITS[unit](base, kind, options)
