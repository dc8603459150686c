"""Golden vectors of the statistics and weights that take no gradient, from a second source.

Plain Python written from the papers, without the Rust.

Run: `python tests/golden/statistics_values.py [--check]`.
It writes statistics_f64.json beside itself, or with --check exits with 1 if that file differs.
"""

import math
import random
import sys
from itertools import pairwise
from statistics import fmean, pstdev, stdev

from golden_file import document, write_or_check

NAME = "statistics_f64.json"
IGNORE = -100


class Draw:
    """Seeded numbers with four decimals."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def uniform(self, low, high, n):
        return [round(low + (high - low) * self.random.random(), 4) for _ in range(n)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def logit(p):
    return math.log(p) - math.log1p(-p)


def by_sequence(cu, values):
    return [values[a:b] for a, b in pairwise(cu)]


def mm_dpo_beta(weight, k):
    """papers_a 7: the factor of beta, kept in [1, 1 + weight]."""
    gaps = [*Draw(1).uniform(0, 6, 5), 0.0, -1.5, 1e-6, 50.0, 1000.0]
    factors = [1 + weight * (1 - math.exp(-k * max(gap, 0.0))) for gap in gaps]
    assert all(1 <= factor <= 1 + weight for factor in factors)
    return {"reward_gaps": gaps, "weight": weight, "k": k}, {"factors": factors}


def lcpo_posterior():
    """papers_a 8: p eta / (p eta + (1 - p)(1 - eta)) as a logistic function."""
    h = [*Draw(2).uniform(-4, 4, 5), 0.0, 30.0, -30.0, 1000.0, -1000.0]
    eta = [0.9, 0.55, 0.99, 0.5, 0.75, 0.9, 0.6, 0.99, 0.7, 0.7]
    weights = [sigmoid(a + logit(b)) for a, b in zip(h, eta, strict=True)]
    for a, b, w in zip(h, eta, weights, strict=True):
        p, q = sigmoid(a), sigmoid(-a)
        assert abs(w - p * b / (p * b + q * (1 - b))) < 1e-14
    return {"h": h, "reliability": eta}, {"posterior": weights}


def lcpo_reliability(momentum):
    """papers_a 8: each batch moves the reliability of the annotators in it."""
    draw = Draw(3)
    annotators = [[0, 1, 0, 0, 1, 0], [1, 1, 0, 1], [2, 0, 2]]
    batches = [
        {"annotators": ids, "posterior": draw.uniform(0.05, 0.99, len(ids))} for ids in annotators
    ]
    eta, after = [0.9, 0.9, 0.9], []
    for batch in batches:
        for k in sorted(set(batch["annotators"])):
            pairs = zip(batch["annotators"], batch["posterior"], strict=True)
            seen = [w for who, w in pairs if who == k]
            eta[k] = (1 - momentum) * eta[k] + momentum * sum(seen) / len(seen)
        after.append(list(eta))
    given = {"initial": [0.9, 0.9, 0.9], "momentum": momentum, "batches": batches}
    return given, {"reliability_after_each_batch": after}


def ordinal_ranks(values):
    """Ranks from 0, smallest first; of equal values the earlier ranks lower."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0] * len(values)
    for rank, i in enumerate(order):
        ranks[i] = rank
    return ranks


def kendall_tau(first, second):
    """CREAM, papers_b 1.3: Kendall tau of the ordinal ranks, and (tau + 1) / 2."""
    a, b = ordinal_ranks(first), ordinal_ranks(second)
    n = len(a)
    signs = [1 if (a[i] < a[j]) == (b[i] < b[j]) else -1 for i in range(n) for j in range(i + 1, n)]
    tau = sum(signs) / len(signs)
    return {"first": first, "second": second}, {"tau": tau, "consistency": (tau + 1) / 2}


def spa_threshold(quantile):
    """SPA, papers_b 1.4: midpoint of two order statistics of the last 50 margins."""
    pushes, window, after = Draw(5).uniform(-2, 3, 60), [], []
    threshold, k = 0.0, math.floor(50 * quantile)
    for margin in pushes:
        window = [*window, margin][-50:]
        if len(window) == 50:
            threshold = sum(sorted(window)[k : k + 2]) / 2
        after.append(threshold)
    given = {"margins": pushes, "window": 50, "quantile": quantile, "initial": 0.0}
    return given, {"threshold_after_each_push": after}


def spa_labels(threshold, strength):
    """SPA, papers_b 1.4: 1 above the threshold, 1 - strength at or below it."""
    margins = [-1.0, threshold, threshold + 1e-9, 0.8, 2.0]
    labels = [1 - strength + strength * (m > threshold) for m in margins]
    return {"margins": margins, "threshold": threshold, "strength": strength}, {"labels": labels}


def sppo_win_rates(scores):
    """papers_a 9: the mean of sigmoid(s_i - s_j) over all j, i itself included."""
    rates = [sum(sigmoid(a - b) for b in scores) / len(scores) for a in scores]
    return {"scores": scores}, {"win_rates": rates}


def infi_fpo_fusion(seed, sources, epsilon):
    """papers_a 6 and addendum 5; one row of source averages per response."""
    draw = Draw(seed)
    given = {"epsilon": epsilon}
    out = {}
    for role, clip in (("chosen", max), ("rejected", min)):
        pivots = draw.uniform(-3, -0.2, 6)
        rows = [draw.uniform(-3.5, -0.1, sources) for _ in pivots]
        rows[0] = [p + (0.5 if role == "rejected" else -0.5) for p in pivots[:1] * sources]
        results = {"max_margin": [], "mean": [], "confidence": [], "confidence_of_clipped": []}
        for pivot, row in zip(pivots, rows, strict=True):
            clipped = [clip(f, pivot) for f in row]
            domains = (lambda f: f, math.exp)  # log-probs, as here, or probabilities: the same
            logs, probabilities = (
                clipped[max(range(sources), key=lambda i: abs(g(clipped[i]) - g(pivot)))]
                for g in domains
            )
            assert logs == probabilities == clip(pivot, *row)
            results["max_margin"].append(logs)
            results["mean"].append(sum(clipped) / sources)
            for name, of in (("confidence", row), ("confidence_of_clipped", clipped)):
                gamma = [1 / (-f + epsilon) for f in of]
                fused = sum(g * f for g, f in zip(gamma, clipped, strict=True)) / sum(gamma)
                results[name].append(fused)
        given |= {f"{role}_pivot": pivots, f"{role}_sources": rows}
        out[role] = results
    return given, out


def label_prob_sums():
    """AlignXplore, papers_b 1.19: sums of label probabilities over the scored tokens."""
    cu = [0, 4, 4, 9, 10]
    logps = [*Draw(6).uniform(-4, -0.01, 9), -800.0]
    scored = [False, True, True, True, False, False, True, True, True, True]
    probabilities = [math.exp(x) * keep for x, keep in zip(logps, scored, strict=True)]
    sums = [math.fsum(p) for p in by_sequence(cu, probabilities)]
    return {"cu_seqlens": cu, "token_logps": logps, "scored": scored}, {"sums": sums}


def calibration_error(confidences, outcomes):
    """Expected calibration error over 5 uniform bins, closed above; the first one has 0 too."""
    bins = [[] for _ in range(5)]
    for c, y in zip(confidences, outcomes, strict=True):
        bins[sum(c > edge / 5 for edge in range(1, 5))].append((c, y))
    n = len(confidences)
    error = sum(abs(sum(c for c, _ in b) - sum(y for _, y in b)) / n for b in bins if b)
    by_bin = 0.0
    for b in bins:
        if b:
            gap = sum(c for c, _ in b) / len(b) - sum(y for _, y in b) / len(b)
            by_bin += len(b) / n * abs(gap)
    assert abs(error - by_bin) < 1e-15
    return (
        {"bins": 5, "confidences": confidences, "outcomes": outcomes},
        {"error": by_bin, "counts": [len(b) for b in bins]},
    )


def tgdpo_weights(beta, alpha):
    """Addendum 6: 1 + alpha beta rho for a chosen token, 1 - alpha beta rho for a rejected one."""
    draw = Draw(7)
    model, reference = draw.uniform(-5, -0.01, 8), draw.uniform(-5, -0.01, 8)
    model[6], reference[6] = -0.1, -60.0
    model[7], reference[7] = -60.0, -0.1
    rho = [a - b for a, b in zip(model, reference, strict=True)]
    given = {
        "beta": beta,
        "alpha": alpha,
        "reward_model_logps": model,
        "reference_logps": reference,
    }
    return given, {
        "chosen": [1 + alpha * beta * r for r in rho],
        "rejected": [1 - alpha * beta * r for r in rho],
    }


def nextquill_weights(high, low, threshold):
    """papers_a 11: high where history raises the label's probability by more than the threshold."""
    draw = Draw(8)
    with_history, without = draw.uniform(-3, -0.01, 10), draw.uniform(-3, -0.01, 10)
    with_history[0] = without[0] = -0.5
    with_history[1], without[1] = -9.0, -20.0  # a large ratio of small probabilities
    scored = [True] * 8 + [False, True]
    weights = [
        (high if math.exp(a) - math.exp(b) > threshold else low) * keep
        for a, b, keep in zip(with_history, without, scored, strict=True)
    ]
    given = {"high": high, "low": low, "threshold": threshold, "scored": scored}
    given |= {"logps_with_history": with_history, "logps_without_history": without}
    total = sum(weights)
    return given, {"weights": weights, "normalized": [w / total for w in weights]}


def log_sum_exp(row):
    top = max(row)
    return top + math.log(math.fsum(math.exp(x - top) for x in row))


def wpo_weights():
    """losses.md, WPO: exp of the mean over scored tokens of log p(y) - log sum p^2, unclamped."""
    draw, vocab, cu = Draw(9), 5, [0, 4, 6, 11, 12]
    logits = [draw.uniform(-3, 3, vocab) for _ in range(cu[-1])]
    labels = [draw.random.randrange(vocab) for _ in range(cu[-1])]
    for t in (0, 6, 7):
        labels[t] = IGNORE
    given = {"cu_seqlens": cu, "ignore_index": IGNORE, "labels": labels, "logits": logits}
    logps, squares = [], []
    for row, label in zip(logits, labels, strict=True):
        norm = log_sum_exp(row)
        logps.append(row[label] - norm if label != IGNORE else 0.0)
        squares.append(log_sum_exp([2 * (x - norm) for x in row]))
    weights = []
    for a, b in pairwise(cu):
        terms = [logps[t] - squares[t] for t in range(a, b) if labels[t] != IGNORE]
        weights.append(math.exp(math.fsum(terms) / len(terms)))
    pairs = [[0, 1], [3, 2]]
    given["pairs"] = pairs
    return given, {
        "token_logps": logps,
        "log_sum_squared_probs": squares,
        "sequence_weights": weights,
        "pair_weights": [weights[c] * weights[r] for c, r in pairs],
    }


def ld_dpo_weights(alpha):
    """losses.md, LD-DPO: 1 for the first min(Lw, Ll) scored tokens, alpha for the rest."""
    cu, pairs = [0, 6, 9, 14, 18, 18, 20], [[0, 1], [3, 2], [4, 5]]
    scored = [True] * 20
    for t in (0, 1, 6, 9, 14):
        scored[t] = False
    kept = [sum(s) for s in by_sequence(cu, scored)]
    weights = [0.0] * 20
    for pair in pairs:
        shared = min(kept[seq] for seq in pair)
        for seq in pair:
            seen = 0
            for t in range(cu[seq], cu[seq + 1]):
                if scored[t]:
                    weights[t] = 1.0 if seen < shared else alpha
                    seen += 1
    given = {"alpha": alpha, "cu_seqlens": cu, "pairs": pairs, "scored": scored}
    return given, {"effective_weights": weights}


def nash_md_weights(beta):
    """losses.md section 9: the loss is the sum of coefficient * log-prob, coefficients fixed."""
    cu, draw = [0, 4, 5, 9], Draw(10)
    policy, reference = draw.uniform(-4, -0.01, 9), draw.uniform(-4, -0.01, 9)
    win = [0.8, 0.5, 0.0625]
    coefficients = []
    for seq, (a, b) in enumerate(pairwise(cu)):
        for t in range(a, b):
            coefficients.append(-(win[seq] - 0.5) + beta * (policy[t] - reference[t]))
    given = {"beta": beta, "cu_seqlens": cu, "win_probabilities": win}
    given |= {"token_logps": policy, "reference_token_logps": reference}
    return given, {
        "coefficients": coefficients,
        "nll_weights": [-c + 0.0 for c in coefficients],
        "loss": [
            sum(c * x for c, x in zip(cs, xs, strict=True))
            for cs, xs in zip(by_sequence(cu, coefficients), by_sequence(cu, policy), strict=True)
        ],
    }


def odds_of_averages():
    """papers_b, ORPO: log-odds of exp(average log-prob)."""
    averages = [*Draw(11).uniform(-4, -0.01, 4), -1e-12, -1e-6, -math.log(2), -40.0, -800.0]
    log_odds = [a - math.log(-math.expm1(a)) for a in averages]
    return {"average_logps": averages}, {"log_odds": log_odds}


def odds_of_probabilities():
    """iREPO, papers_b 1.2: log(p / (1 - p))."""
    p = [*Draw(12).uniform(0.01, 0.99, 4), 0.5, 1e-6, 0.999999]
    return {"probabilities": p}, {"log_odds": [logit(x) for x in p]}


def odds_of_strengths():
    """iREPO, papers_b 1.2: log a1 - log a2 of Zermelo strengths."""
    first, second = [0.5, 2.0, 1e-3, 7.25, 1.0], [0.5, 0.25, 40.0, 3.0, 1e-9]
    log_odds = [math.log(a) - math.log(b) for a, b in zip(first, second, strict=True)]
    return {"first": first, "second": second}, {"log_odds": log_odds}


def group_advantages(baseline, spread, epsilon, singleton):
    """losses.md section 8: rewards against those of their group."""
    rewards = Draw(40).uniform(-2, 3, 12)
    prompts = [5, 0, 5, 2, 0, 5, 2, 7, 5, 0, 9, 9]
    rewards[10] = rewards[11]
    by_prompt = {p: [r for r, q in zip(rewards, prompts, strict=True) if q == p] for p in prompts}
    advantages = []
    for i, (reward, prompt) in enumerate(zip(rewards, prompts, strict=True)):
        group = by_prompt[prompt]
        alone = len(group) == 1
        if alone and singleton == "Zero":
            advantages.append(0.0)
            continue
        others = [r for j, r in enumerate(rewards) if prompts[j] == prompt and j != i]
        mean = 0.0 if alone else fmean(others if baseline == "LeaveOneOut" else group)
        if spread == "One":
            divisor = 1.0
        elif spread == "Batch":
            divisor = stdev(rewards) + epsilon
        else:
            std = 1.0 if alone else (stdev if spread == "Group" else pstdev)(group)
            divisor = std + epsilon
        advantages.append((reward - mean) / divisor)
    given = {"rewards": rewards, "prompts": prompts, "baseline": baseline, "spread": spread}
    return given | {"epsilon": epsilon, "singleton": singleton}, {"advantages": advantages}


def tie_ranks(ties):
    """Ranks from the largest, 1; `ties` as scipy's rankdata names them."""
    scores = [2.0, 5.0, 2.0, 1.0, 5.0, 5.0, 0.0, -0.0, 7.0]
    ranks = []
    for i, score in enumerate(scores):
        above = sum(other > score for other in scores)
        same = sum(other == score for other in scores)
        ranks.append(
            {
                "Ordinal": 1 + above + sum(other == score for other in scores[:i]),
                "Min": 1 + above,
                "Max": above + same,
                "Average": above + (1 + same) / 2,
                "Dense": 1 + len({other for other in scores if other > score}),
            }[ties]
        )
    return {"scores": scores, "ties": ties}, {"ranks": [float(rank) for rank in ranks]}


def p3o(beta, truncation, scaled):
    """Addendum 1: D, the truncated ratios, and what V1 to V3 take from them."""
    draw = Draw(41)
    pairs = [[0, 3], [4, 1], [2, 6]]  # 5 is in none
    policy, old, reference = (draw.uniform(-9, -5, 7) for _ in range(3))
    old[2], old[6] = policy[2] + 3.0, policy[6] - 2.5  # ratios beyond the truncation
    rewards = draw.uniform(-1, 1, 7)

    def held(x):
        return min(max(math.exp(x), 1 / truncation), truncation)

    d, dold = ([a - b for a, b in zip(x, reference, strict=True)] for x in (policy, old))
    differences = [rewards[i] - rewards[j] - beta * (d[i] - d[j]) for i, j in pairs]
    if scaled:
        std = stdev(differences)
        differences = [x / std for x in differences]
    separate, by_token = [0.0] * 7, [0.0] * 7
    weights, margins, ordered = [], [], []
    for (i, j), difference in zip(pairs, differences, strict=True):
        ri, rj = policy[i] - old[i], policy[j] - old[j]
        separate[i], separate[j] = difference * held(rj), -difference * held(ri)
        by_token[i], by_token[j] = difference * held(ri + rj), -difference * held(ri + rj)
        a, b = (i, j) if difference > 0 else (j, i)
        ordered.append([a, b])
        weights.append(abs(difference) * held(ri + rj))
        margins.append(dold[a] - dold[b])
    given = {"pairs": pairs, "policy": policy, "old": old, "reference": reference}
    given |= {"rewards": rewards, "beta": beta, "truncation": truncation, "scaled": scaled}
    out = {"separate": separate, "by_token": by_token, "pairs": ordered}
    return given, out | {"weights": weights, "margins": margins}


def plan():
    """(id, what it computes, input and expected)."""
    yield "mm_dpo_beta/defaults", mm_dpo_beta(0.5, 0.5)
    yield "mm_dpo_beta/strong", mm_dpo_beta(1.0, 0.25)
    yield "lcpo_posterior/mixed", lcpo_posterior()
    yield "lcpo_reliability/defaults", lcpo_reliability(0.1)
    yield "lcpo_reliability/momentum_1", lcpo_reliability(1.0)
    draw = Draw(4)
    seven = draw.uniform(-3, 3, 7), draw.uniform(-3, 3, 7)
    rising = [0.5, 1.0, 2.0, 4.0]
    yield "kendall_tau/random", kendall_tau(*seven)
    yield "kendall_tau/same", kendall_tau(rising, [-3.0, -2.5, 0.0, 9.0])
    yield "kendall_tau/reversed", kendall_tau(rising, rising[::-1])
    yield "kendall_tau/all_tied", kendall_tau([1.0] * 4, [2.0] * 4)
    yield "kendall_tau/tied_against_rising", kendall_tau([1.0] * 4, rising)
    yield "kendall_tau/tied_against_falling", kendall_tau([1.0] * 4, rising[::-1])
    yield "kendall_tau/some_ties", kendall_tau([2.0, 1.0, 2.0, 0.0, 1.0], [0.0, 3.0, 3.0, 1.0, 1.0])
    yield "kendall_tau/two", kendall_tau([1.0, 0.0], [0.0, 1.0])
    yield "spa_threshold/q0.1", spa_threshold(0.1)
    yield "spa_threshold/q0.5", spa_threshold(0.5)
    yield "spa_threshold/q0.25", spa_threshold(0.25)
    yield "spa_labels/strength0.1", spa_labels(0.25, 0.1)
    yield "sppo_win_rates/five", sppo_win_rates(draw.uniform(-4, 4, 5))
    yield "sppo_win_rates/ties", sppo_win_rates([1.0, 1.0, -2.0])
    yield "sppo_win_rates/far", sppo_win_rates([1000.0, 0.0, -1000.0])
    yield "sppo_win_rates/one", sppo_win_rates([0.3])
    yield "infi_fpo_fusion/three", infi_fpo_fusion(13, 3, 1e-6)
    yield "infi_fpo_fusion/one", infi_fpo_fusion(14, 1, 1e-6)
    yield "infi_fpo_fusion/large_epsilon", infi_fpo_fusion(15, 4, 0.5)
    yield "label_prob_sums/masked", label_prob_sums()
    edges = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.19, 0.59, 0.79, 0.999]
    right = [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    many = draw.uniform(0, 1, 23)
    yield "calibration_error/edges", calibration_error(edges, right)
    yield (
        "calibration_error/random",
        calibration_error(many, [float(draw.random.random() < c * c) for c in many]),
    )
    yield "calibration_error/empty_bins", calibration_error([0.9, 0.95, 0.05], [1.0, 0.0, 0.0])
    yield "calibration_error/soft_outcomes", calibration_error([0.3, 0.35, 0.7], [0.5, 0.25, 1.0])
    yield "tgdpo_token_weights/defaults", tgdpo_weights(0.1, 0.5)
    yield "tgdpo_token_weights/negative", tgdpo_weights(0.5, 2.0)
    yield "nextquill_token_weights/defaults", nextquill_weights(0.9, 0.1, 0.05)
    yield "nextquill_token_weights/threshold0", nextquill_weights(1.0, 0.25, 0.0)
    yield "wpo_sequence_weights/masked", wpo_weights()
    for alpha in (0.0, 0.3, 1.0):
        yield f"ld_dpo_token_weights/alpha{alpha:g}", ld_dpo_weights(alpha)
    yield "nash_md_token_weights/beta0.1", nash_md_weights(0.1)
    yield "nash_md_token_weights/beta1", nash_md_weights(1.0)
    yield "odds/average_logps", odds_of_averages()
    yield "odds/probabilities", odds_of_probabilities()
    yield "odds/strengths", odds_of_strengths()
    for baseline in ("Mean", "LeaveOneOut"):
        for spread, epsilon in (
            ("One", 0.0),
            ("Group", 1e-4),
            ("GroupPopulation", 1e-2),
            ("Batch", 1e-4),
        ):
            for singleton in ("Zero", "Reward"):
                name = f"group_advantages/{baseline}_{spread}_{singleton}"
                yield name, group_advantages(baseline, spread, epsilon, singleton)
    for ties in ("Ordinal", "Min", "Max", "Average", "Dense"):
        yield f"ranks/{ties}", tie_ranks(ties)
    yield "p3o/defaults", p3o(0.05, 10.0, False)
    yield "p3o/scaled", p3o(0.5, 2.0, True)


NOTES = [
    "no gradient anywhere; input and expected hold plain numbers and arrays",
    "mm_dpo_beta: beta = factor * beta_ori, gaps below 0 count as 0",
    "kendall_tau: ordinal ranks ascending, of equal values the earlier ranks lower, in both lists",
    "spa_threshold: order statistics floor(50 q) and floor(50 q) + 1 from 0, once 50 are in",
    (
        "infi_fpo_fusion: per response, all values average log-probs; sources are clipped to the "
        "pivot (chosen: from below, rejected: from above), then fused; confidence weighs by "
        "1/(-f + epsilon) of the source before clipping, confidence_of_clipped after"
    ),
    "label_prob_sums, ld_dpo, nextquill: tokens that are not scored count nothing (weight 0)",
    "wpo: the ignored label has log-prob 0 and is in no mean; pair weight = product, not clamped",
    "nash_md: loss per sequence = sum coefficient * log-prob, so nll_weights = -coefficients",
    "group_advantages: equal prompts are a group; the responses of prompt 9 have equal rewards",
    "ranks: from the largest, 1",
    "p3o: separate V1, pairs, weights and margins V2, by_token V3; sequence 5 is in no pair",
    "tolerance: rtol 1e-12 with atol 1e-15, for wpo and label_prob_sums 1e-11",
]


def main(arguments):
    """Computes every case."""
    cases = []
    for case_id, (given, expected) in plan():
        statistic = case_id.split("/")[0]
        head = {"id": case_id, "statistic": statistic}
        cases.append(head | {"input": given, "expected": expected})
    assert len({case["id"] for case in cases}) == len(cases)
    header = {
        "schema": "prefloss-golden/1",
        "file": NAME,
        "description": "statistics, schedules and weights without gradient",
        "provenance": "plain Python composed by this project from the papers",
        "notes": NOTES,
    }
    write_or_check(NAME, document(header, cases=cases), arguments)
    print(f"{NAME}: {len(cases)} cases")


if __name__ == "__main__":
    main(sys.argv[1:])
