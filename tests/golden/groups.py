"""Golden vectors of the losses and statistics over groups of responses from a second source.

torch autograd in f64 written from the papers and the published code, without the Rust.

Run: `python tests/golden/groups.py [--check]` (torch on the CPU).
It writes groups_f64.json beside itself, or with --check exits with 1 if that file differs.
Every gradient is compared with central finite differences on the way.
"""

import sys
from itertools import pairwise

import torch
from groups_losses import LOSSES, STATISTICS, Group
from objectives_inputs import F64, Draw, vector
from oracle import Cases, Stop, gradient, write

NAME = "groups_f64.json"

NOTES = [
    (
        "groups: flat arrays, group g owns entries cu[g]..cu[g+1]; policy, reference: sums of "
        "log-probs; averages divide by max(tokens, 1); scores: larger is better; levels: 1 is best"
    ),
    (
        "losses: one per group, no mean over groups, none over pairs unless said; grad_policy "
        "(grad_rewards): gradient of the SUM of the groups' losses by the policy sums (rewards)"
    ),
    (
        "PlackettLuce, Pro and KnowPat take the responses best score first, ties by position; only "
        "the inputs shuffled and edge are not in that order already"
    ),
    (
        "pairs of Rrhf, LipoLambda and AllPairsBradleyTerry: each unordered pair of different scores "
        "once; a group without such pairs has loss 0"
    ),
    (
        "Pro: ranking term only; temperatures are the score gaps, that of the positive the largest; "
        "epsilon is added inside the log (1e-10 in the code, 0 = plain log-sum-exp)"
    ),
    (
        "KnowPat: without NLL; form paper: inner sum over strictly worse scores, /(K-1); "
        "paper_by_position: the same with all later candidates as worse; code: inner mean over later "
        "candidates, /3 for every K. The padded-length slip of the code is left out"
    ),
    (
        "Rrhf: hinge of the averages, no margin, without NLL; at equal averages of different scores "
        "the gradient is 0 (torch relu)"
    ),
    (
        "LipoLambda: ranks by the current beta*log-ratio, from 1, ties by position, fixed; discount "
        "1/log(1 + rank), form paper natural log, rax log2 and times K, here the "
        "size of the group (rax: the padded width of the batch); gain 2^score"
    ),
    "InfoNca, NcaList: targets softmax(scores / alpha); without the 0.01 that their code adds",
    (
        "SteerLm: w = softmax(attribute + prior - reference), b = softmax(policy - reference), "
        "reference = log Q'; difference: -sum (w - b) policy with b fixed; cross_entropy: "
        "-sum w policy + logsumexp(policy - reference); normalized: -sum w log b; the three have one "
        "gradient; length_normalized divides by the group's mean of max(tokens, 1)"
    ),
    (
        "Trpa: anisotropy k multiplies pairs whose better response is at level 1 (best = level_1, "
        "the code) or at the best level of its group (best = group); sum over pairs, the code takes "
        "their mean over the micro-batch"
    ),
    (
        "edge: a group of one, a group with a response of 0 tokens, unsorted; identical: equal "
        "responses in a group; wide: log-ratios of +-300 and 0, rewards likewise; large: 40 responses"
    ),
    (
        "advantages: baseline mean or leave_one_out, then / (std + epsilon), then * factors[group]; "
        "scale group = std of the group, batch = std of all rewards (TRL scale_rewards=batch), "
        "whiten = of all advantages, which are centred once more (TRL RLOO normalize_advantages)"
    ),
    (
        "singletons: TRL 1.16 gives 0 (mean, std set to 0; RLOO: set to 0); verl 0.9.1 GRPO takes "
        "mean 0 and std 1, so r / (1 + 1e-6) or, without the std, r; verl RLOO r; NeMo-RL 0; the "
        "statistics themselves are undefined (unbiased std NaN, leave-one-out 0/0)"
    ),
    "ranks: from 1, largest first; ties as in scipy.stats.rankdata of the negated values",
    "tolerance: rtol 1e-9 with atol 1e-12 (LipoLambda: times the largest gain)",
]


# ---- inputs -------------------------------------------------------------------------------------

SIZES = {
    "large": [40, 2],
    "identical": [2, 3, 4, 3],
    "edge": [1, 3, 2, 4],
}
SETS = ("random", "shuffled", "ties", "wide", "identical", "large", "edge")


def starts(sizes):
    return torch.tensor([0, *sizes]).cumsum(0)


def groups(name):
    """Groups of responses of one prompt each."""
    draw = Draw(900 + SETS.index(name))
    sizes = SIZES.get(name, [2, 3, 4, 5, 6, 7])
    n, cu = sum(sizes), starts(sizes)
    tokens = draw.tokens(3, 25, n)
    policy = -(tokens * draw.uniform(0.1, 2.5, n)).round(decimals=4)
    ratios = draw.normal(2.0, n)
    rewards, scores = draw.normal(1.5, n), draw.uniform(-3, 3, n)
    if name == "wide":
        signs = vector([[1.0, -1.0, 0.0, 1.0, -1.0][i % 5] for i in range(n)])
        ratios = 300 * signs
        policy = (policy * 64).round() / 64 - 300 * (signs < 0)  # exact, so that ties are ties
        rewards, scores = 300 * signs[torch.arange(n - 1, -1, -1)], draw.uniform(-8, 8, n)
    levels = draw.tokens(1, 5, n)
    if name == "ties":
        scores = scores.round()
        scores[cu[2] : cu[3]] = 1.0
        levels[cu[2] : cu[3]] = 2.0
        levels[cu[3] : cu[4]] += levels[cu[3] : cu[4]] == 1  # no best level in this group
    reference = policy - ratios if name == "wide" else (policy - ratios).round(decimals=4)
    if name == "identical":
        for key in (policy, reference, tokens, rewards):
            for g, same in enumerate(([0, 1], [1, 2], [0, 1, 2, 3], [0, 2])):
                key[cu[g] + torch.tensor(same)] = key[cu[g] + same[0]].clone()
    if name == "edge":
        policy[2], reference[2], tokens[2] = 0.0, 0.0, 0.0
    if name not in ("shuffled", "edge"):
        for a, b in pairwise(cu):
            scores[a:b] = scores[a:b].sort(descending=True).values
            levels[a:b] = levels[a:b].sort().values
    return {
        "cu": cu,
        "policy": policy,
        "reference": reference,
        "tokens": tokens,
        "scores": scores,
        "levels": levels,
        "rewards": rewards,
        "attribute": draw.uniform(-3, -0.05, n),
        "prior": (policy + draw.normal(1.0, n)).round(decimals=4),
    }


def rewards(name):
    """Rewards of groups, one of them with equal rewards."""
    draw = Draw(950)
    sizes = [4, 3, 2, 5, 7] if name == "plain" else [4, 1, 5, 3, 1]
    values = draw.uniform(-2, 3, sum(sizes))
    values[sizes[0] : sizes[0] + sizes[1]] = 0.5
    if name == "binary":
        values = (values > 0.5).to(F64)
    return {"cu": starts(sizes), "rewards": values}


def values(name):
    """Values to rank."""
    lists = [[3, 1, 2], [1, 1, 1, 1], [2, 5, 2, 7, 5, 5, -1], [0.5], [-1.5, -1.5], [1, 2, 3, 2, 1]]
    return {
        "cu": starts([len(x) for x in lists]),
        "rewards": vector([float(v) for x in lists for v in x]),
    }


# ---- cases --------------------------------------------------------------------------------------

GUARD = (
    "groups whose averages are all equal: the sources give 0/0 (NaN); here mu = 0, so that the loss "
    "is 0"
)


def loss_plan():
    """(objective, params, inputs, note)."""
    for beta in (0.1, 1.0):
        yield "PlackettLuce", {"beta": beta}, SETS, None
    yield "Pro", {"epsilon": 0.0}, SETS, "the paper's form, with 1/T = score gap"
    yield "Pro", {"epsilon": 1e-10}, SETS, "the code's form"
    for form in ("paper", "paper_by_position", "code"):
        yield "KnowPat", {"form": form}, SETS, GUARD
    yield "Rrhf", {}, SETS, None
    for form in ("paper", "rax"):
        yield "LipoLambda", {"form": form, "beta": 0.1}, SETS, None
        yield "LipoLambda", {"form": form, "beta": 1.0}, ("random", "ties", "identical"), None
    for objective in ("InfoNca", "NcaList"):
        yield objective, {"beta": 0.1, "alpha": 1.0}, SETS, None
        yield objective, {"beta": 1.0, "alpha": 0.3}, ("random", "ties", "wide"), None
        sharp = "default alpha of the code, nearly one-hot"
        yield objective, {"beta": 0.1, "alpha": 1e-4}, ("random", "ties"), sharp
    for form in ("difference", "cross_entropy", "normalized"):
        for length_normalized in (True, False):
            params = {"form": form, "length_normalized": length_normalized}
            names = SETS if length_normalized else ("random", "edge")
            yield "SteerLm", params, names, None
    yield "AllPairsBradleyTerry", {}, SETS, None
    for best in ("level_1", "group"):
        yield "Trpa", {"beta": 0.1, "anisotropy": 2.5, "best": best}, SETS, None
        yield "Trpa", {"beta": 1.0, "anisotropy": 1.5, "best": best}, ("random", "shuffled"), None
    yield "TrpaFallback", {}, ("random", "edge"), "sum, not the mean of the code"


def variant(note, baseline, scale, singleton, **more):
    """Parameters and note of one way to compute advantages."""
    return {"baseline": baseline, "scale": scale, "singleton": singleton} | more, note


def statistics_plan():
    """(statistic, params, input maker, inputs, note)."""
    names = ("plain", "singleton", "binary")
    unbiased = {"unbiased": True}
    trl, verl = unbiased | {"epsilon": 1e-4}, unbiased | {"epsilon": 1e-6}
    factors = {"factors": [0.5, 1.0, 2.5, 0.125, 1.75]}
    unknown = "GRPO-S: factor after the std division; its std and epsilon are unknown, this reads "
    for params, note in (
        variant("Dr. GRPO, TRL scale_rewards=none", "mean", "none", "zero"),
        variant("verl without the std", "mean", "none", "raw"),
        variant("TRL scale_rewards=group", "mean", "group", "zero", **trl),
        variant("verl GRPO", "mean", "group", "raw", **verl),
        variant("HALOs", "mean", "group", "zero", unbiased=False, epsilon=1e-2),
        variant("TRL scale_rewards=batch", "mean", "batch", "zero", **trl),
        variant("TRL RLOO", "leave_one_out", "none", "zero"),
        variant("verl RLOO", "leave_one_out", "none", "raw"),
        variant("TRL RLOO, normalize_advantages", "leave_one_out", "whiten", "zero", **trl),
        variant(unknown + "TRL's", "mean", "group", "zero", **trl, **factors),
        variant(
            unknown + "the biased std",
            "mean",
            "group",
            "zero",
            unbiased=False,
            epsilon=1e-4,
            **factors,
        ),
    ):
        yield "advantages", params, rewards, names, note
    for ties in ("ordinal", "min", "max", "average", "dense"):
        yield "ranks", {"ties": ties}, values, ("lists",), None


def expected_of_groups(label, objective, params, arrays, kinked):
    """The loss of every group and the gradient of their sum."""
    stop = Stop()
    cu = arrays["cu"].tolist()

    def losses_of(moved):
        parts = [
            Group({key: value[a:b] for key, value in moved.items() if key != "cu"})
            for a, b in pairwise(cu)
        ]
        return torch.stack([LOSSES[objective](part, params, stop) for part in parts])

    with torch.no_grad():
        out = {"losses": losses_of(arrays)}
    stop.replay()
    name = "rewards" if objective == "AllPairsBradleyTerry" else "policy"
    out[f"grad_{name}"] = gradient(losses_of, arrays, name, stop, label, kinked)
    return out


def main(arguments):
    """Computes every case."""
    torch.set_num_threads(1)
    torch.set_default_dtype(F64)
    found = Cases()
    for objective, params, names, note in loss_plan():

        def expected(label, name, arrays, o=objective, p=params):
            kinked = o == "Rrhf" and name == "identical"
            return expected_of_groups(label, o, p, arrays, kinked)

        noted = ["identical"] if note == GUARD else None
        found.add(objective, params, groups, names, note, expected, noted)
    for statistic, params, make, names, note in statistics_plan():

        def expected(label, name, arrays, s=statistic, p=params):
            flat, sizes = arrays["rewards"], arrays["cu"].diff().tolist()
            return {s: STATISTICS[s](list(flat.split(sizes)), p)}

        found.add(statistic, params, make, names, note, expected)
    write(
        NAME,
        "losses over ragged groups of responses: sums, scores -> losses of groups and the gradients "
        "of their sum; advantages and ranks in groups",
        ["torch.logsumexp", "torch.nn.functional.logsigmoid", "torch.autograd.grad"],
        NOTES,
        found,
        arguments,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
