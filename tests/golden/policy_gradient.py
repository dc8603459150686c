"""Golden vectors of the losses over sampled tokens from a second source.

torch autograd in f64 written from the papers and the published trainers, without the Rust.

Run: `python tests/golden/policy_gradient.py [--check]` (torch on the CPU).
It writes policy_gradient_f64.json beside itself, or with --check exits with 1 if that file differs.
Every gradient is compared with central finite differences on the way.
"""

import math
import sys

import torch
from objectives_inputs import F64, Draw, vector
from oracle import Cases, Stop, gradient, write
from policy_gradient_losses import SEQUENCE_LOSSES, TOKEN_LOSSES, Batch, p3o

NAME = "policy_gradient_f64.json"
LN_2 = math.log(2)

NOTES = [
    (
        "sequences: [B, T] padded rows, one advantage per row; mask 1 = token counts; where it is 0 "
        "the arrays hold arbitrary numbers that must not be read, losses and gradients are 0"
    ),
    (
        "losses: of each token, no reduction, no weight; grad_log_probs (grad_entropy): gradient of "
        "the SUM of all losses by that array; old, reference and advantages carry no gradient"
    ),
    (
        "Gspo, Rloo, Gmpo: one loss per sequence; losses repeats it at each token that counts, so "
        "that grad_log_probs has the factor of the number of tokens; sequence_losses has it once "
        "(0 for a fully masked row; TRL counts -A there), grad_of_sequence_losses is the gradient of "
        "their sum"
    ),
    "absent parameters are off; ratio = exp(log_probs - old)",
    (
        "PpoClip: ratio_cap (TRL's delta) caps the unclipped branch only; dual_clip: where A < 0 the "
        "loss is at most -dual_clip*A; log_ratio_limit: log-ratio clamped before exp, gradient 0 "
        "outside"
    ),
    (
        "Gmpo: A > 0: min(log-ratio, epsilon), else max(log-ratio, -epsilon); epsilon is in log "
        "space. A = 0 gives 0 under every reading (verl multiplies by sign(0), TRL takes the lower "
        "clip)"
    ),
    "Cispo: cap is the largest ratio itself (TRL's epsilon_high), not 1 + epsilon",
    (
        "Sapo: tau_positive where A > 0, else tau_negative, in f64 (TRL's torch.where rounds 1.05 to "
        "f32); Vespo: the positive pair where A >= 0"
    ),
    (
        "KlPenalty: gap = reference - log_probs clamped to +-input_clamp (no gradient outside), then "
        "K1 -gap, K2 gap^2/2, K3 exp(gap) - gap - 1, then clamped to +-output_clamp. NeMo-RL clamps "
        "all three so, verl only K3 (20, 10), TRL none"
    ),
    (
        "Vespo: log w = sum over tokens of the log-ratio clamped to +-20, itself clamped to "
        "[log 1e-8, 20]; weight = exp(lambda + k log w - lambda w), fixed"
    ),
    (
        "P3o: pairs, with the 1/2, without the mean over pairs; D, the advantages and w are fixed; "
        "rt clips to [1/ratio_limit, ratio_limit]; A_1 = D rt(rho_2), A_2 = -D rt(rho_1), "
        "w = rt(rho_1 rho_2); v2_losses takes u from log-ratios to the reference, "
        "v2_losses_without_reference from the sums alone (same gradients)"
    ),
    (
        "inputs: ordinary = ratios 0.5 to 2; holes = tokens masked inside rows too; wild = log-ratios "
        "to +-8; far = to +-30; edge = ratio exactly 1 (rows 0, 1, 5), a fully masked row (2), rows "
        "of one token (3, 4); on_policy = every ratio exactly 1; kink = ratios 2, 0.5, 1 with clip "
        "edges at 2 and 0.5"
    ),
    "tolerance: rtol 1e-9 with atol 1e-12",
]


# ---- inputs -------------------------------------------------------------------------------------

LENGTHS = {
    "edge": [5, 4, 0, 1, 1, 3],
    "kink": [4, 4],
}
ADVANTAGES = {
    "edge": [1.25, -0.75, 0.5, 2.0, -1.5, 0.0],
    "kink": [1.5, -0.5],
}


def gaps(name, draw, shape):
    """Log-ratios to the old policy."""
    n = math.prod(shape)
    if name in ("ordinary", "holes"):
        return draw.uniform(-LN_2, LN_2, n).view(shape)
    if name in ("wild", "far"):
        far = 8 if name == "wild" else 30
        return draw.uniform(-far, far, n).view(shape)
    if name == "edge":
        out = draw.uniform(-LN_2, LN_2, n).view(shape)
        out[[0, 1, 5]] = 0.0
        return out
    return torch.zeros(shape, dtype=F64)


def sequences(name):
    """A batch of padded sequences."""
    draw = Draw(700 + ("ordinary", "holes", "wild", "far", "edge", "on_policy", "kink").index(name))
    lengths = LENGTHS.get(name, [8, 5, 7, 3, 6, 8])
    shape = len(lengths), max(lengths)
    n = math.prod(shape)
    mask = (torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)).to(F64)
    if name == "holes":
        mask *= (draw.uniform(0, 1, n).view(shape) > 0.3).to(F64)
    ratio = gaps(name, draw, shape)
    to_reference = 1.5 * draw.normal(1.0, n).view(shape)
    if name in ("wild", "far"):
        far = 8 if name == "wild" else 30
        to_reference = draw.uniform(-far, far, n).view(shape)
    # far enough below 0 that no old or reference log-prob is above it
    room = torch.maximum(torch.relu(-ratio), torch.relu(-to_reference))
    log_probs = -(room + draw.uniform(0.05, 2.5, n).view(shape)).round(decimals=4)
    old, reference = (log_probs - gap for gap in (ratio, to_reference))
    old, reference = old.round(decimals=4), reference.round(decimals=4)
    if name in ("edge", "on_policy"):
        reference[0, :2] = log_probs[0, :2]
    if name == "kink":
        log_probs = torch.tensor([[0.0, -LN_2, -1.25, -0.5]] * 2, dtype=F64)
        old = torch.tensor([[-LN_2, 0.0, -1.25, -0.75]] * 2, dtype=F64)
    out = {
        "log_probs": log_probs,
        "old": old,
        "reference": reference,
        "entropy": draw.uniform(0.05, 4, n).view(shape),
    }
    for key, values in out.items():
        noise = draw.uniform(-9, 3, n).view(shape)
        out[key] = torch.where(mask > 0, values, noise)
    advantages = ADVANTAGES.get(name, [1.3, -0.8, 0.45, -2.1, 0.0, 0.9])
    return out | {"mask": mask, "advantages": vector(advantages)}


def pairs(name):
    """Pairs of responses of one prompt, by their sums."""
    draw = Draw(800 + ("ordinary", "wild", "on_policy").index(name))
    n = 10
    far = {"ordinary": 0.5, "wild": 40.0, "on_policy": 0.0}[name]
    out = {}
    for side in ("1", "2"):
        s = -draw.uniform(60, 200, n)
        out[f"s_{side}"] = s
        out[f"s_old_{side}"] = (s - far * draw.uniform(-1, 1, n)).round(decimals=4)
        out[f"ref_{side}"] = (s - draw.normal(4.0, n)).round(decimals=4)
    out |= {"r_1": draw.uniform(-3, 3, n), "r_2": draw.uniform(-3, 3, n)}
    if name == "on_policy":  # identical responses: D is 0
        for key in ("s", "s_old", "ref", "r"):
            out[f"{key}_2"][0] = out[f"{key}_1"][0]
    return out


# ---- cases --------------------------------------------------------------------------------------

SETS = ("ordinary", "holes", "wild", "edge")
ALL = (*SETS, "on_policy")
DAPO = {"epsilon_low": 0.2, "epsilon_high": 0.28}
VESPO = {"k_positive": 2.0, "lambda_positive": 3.0, "k_negative": 3.0, "lambda_negative": 2.0}
NEMO = {"input_clamp": 20.0, "output_clamp": 10.0}
TIGHT = {"input_clamp": 5.0, "output_clamp": 2.0}
KINK = (
    "kink: ratios on the clip's edges, where the loss has no derivative; grad_log_probs is torch's "
    "(the edge counts as inside), grad_log_probs_clipped takes the edge as outside; anything "
    "between them is a subgradient"
)
PRODUCT = "the clamped estimate times the ratio, gradient through both (TRL, which has no clamps)"
DETACHED = "reading of older NeMo-RL: the clamped estimate times the ratio without its gradient"
INSIDE = (
    "reading of newer NeMo-RL: the ratio multiplies before the output clamp, and carries no "
    "gradient where the input clamp acts"
)


def sequence_plan():
    """(objective, params, inputs, note)."""
    plain = {"epsilon_low": 0.2, "epsilon_high": 0.2}
    limited = DAPO | {"dual_clip": 3.0, "log_ratio_limit": 20.0}
    yield "PpoClip", plain, ALL, None
    yield "PpoClip", DAPO, ALL, None
    yield (
        "PpoClip",
        DAPO | {"ratio_cap": 1.6},
        SETS,
        "TRL delta, so small that ratios of 2 reach it",
    )
    yield "PpoClip", DAPO | {"ratio_cap": 4.0}, ("wild", "far"), "TRL delta"
    yield "PpoClip", DAPO | {"dual_clip": 3.0}, ALL, "Ye et al. 2020, default of verl"
    yield "PpoClip", DAPO | {"dual_clip": 1.5}, ("ordinary", "holes"), None
    yield "PpoClip", DAPO | {"log_ratio_limit": 20.0}, (*SETS, "far"), "clamp of verl"
    yield "PpoClip", DAPO | {"log_ratio_limit": 5.0}, ("wild",), None
    yield "PpoClip", limited, ("wild", "far"), "what verl computes"
    both = DAPO | {"ratio_cap": 6.0, "dual_clip": 3.0}
    yield "PpoClip", both, ("wild",), "composition that no library read has: cap, then dual clip"
    yield "PpoClip", {"epsilon_low": 0.5, "epsilon_high": 1.0}, ("kink",), KINK
    yield "Gspo", {"epsilon_low": 3e-4, "epsilon_high": 4e-4}, SETS, "TRL's form"
    yield (
        "Gspo",
        DAPO,
        ALL,
        "verl's straight-through form: same values and gradients (its cap e^10 is not met)",
    )
    yield "Gmpo", {"epsilon": 0.4}, ALL, None
    yield "Gmpo", {"epsilon": 0.1}, SETS, None
    yield "Cispo", {"cap": 1.28}, ALL, None
    yield "Cispo", {"cap": 5.0}, ("ordinary", "wild", "far"), None
    floor = {"cap": 1.28, "epsilon_low": 0.2}
    yield (
        "Cispo",
        floor,
        ("ordinary", "wild"),
        "reading of verl: ratio also at least 1 - epsilon_low",
    )
    yield "Sapo", {"tau_positive": 1.0, "tau_negative": 1.05}, (*ALL, "far"), None
    yield "Sapo", {"tau_positive": 2.5, "tau_negative": 4.0}, ("ordinary",), None
    yield "Rloo", {"epsilon": 0.2}, ALL, None
    yield "Reinforce", {}, SETS, None
    for estimator in ("K1", "K2", "K3"):
        kind = {"estimator": estimator}
        yield "KlPenalty", kind, (*ALL, "far"), None
        yield "KlPenalty", kind | NEMO, ("ordinary", "wild", "far", "edge"), "clamps of NeMo-RL"
        yield "KlPenalty", kind | TIGHT, ("wild",), None
        product = kind | {"importance": "product"}
        yield (
            "KlPenalty",
            product,
            ALL,
            "TRL bias correction; NeMo-RL's on-policy form if ratio = 1",
        )
        yield "KlPenalty", kind | {"importance": "detached"}, ("ordinary", "wild"), DETACHED
        for name, note in (
            ("product", PRODUCT),
            ("detached", DETACHED),
            ("inside_output_clamp", INSIDE),
        ):
            yield "KlPenalty", kind | TIGHT | {"importance": name}, ("ordinary", "wild"), note
    yield "KlPenalty", {"estimator": "K3", "input_clamp": 20.0}, ("far",), None
    yield "KlPenalty", {"estimator": "K3", "output_clamp": 10.0}, ("far",), "OpenRLHF: output only"
    yield "TrustRegion", {}, (*ALL, "far"), None
    yield "EntropyBonus", {}, SETS, None
    yield "Vespo", VESPO, (*ALL, "far"), None
    other = {"k_positive": 1.5, "lambda_positive": 0.5, "k_negative": 0.25, "lambda_negative": 1.0}
    yield "Vespo", other, ("ordinary", "wild", "far"), None
    yield "LogProbClip", {"epsilon": 0.2}, ALL, None


def pair_plan():
    """(params, inputs, note)."""
    old = "reading of papers_b 1.7, superseded: D with the stored policy's log-probs"
    for beta, epsilon, limit, kl_policy, names, note in (
        (0.05, 0.2, 10.0, "current", ("ordinary", "wild", "on_policy"), None),
        (0.3, 0.4, 1.25, "current", ("ordinary", "wild"), "D changes sign within its KL part"),
        (0.0, 0.2, 10.0, "current", ("ordinary",), None),
        (0.05, 0.2, 10.0, "old", ("ordinary", "wild"), old),
    ):
        params = {"beta": beta, "epsilon": epsilon, "ratio_limit": limit, "kl_policy": kl_policy}
        yield params, names, note


def expected_of_tokens(label, objective, params, arrays, kinked):
    """Losses of tokens and their gradients."""
    stop, mask = Stop(), arrays["mask"]

    def losses_of(moved):
        return torch.where(mask > 0, TOKEN_LOSSES[objective](Batch(moved), params, stop), 0.0)

    with torch.no_grad():
        out = {"losses": losses_of(arrays)}
    stop.replay()
    names = ("entropy", "log_probs") if objective == "EntropyBonus" else ("log_probs",)
    for name in names:
        out[f"grad_{name}"] = gradient(losses_of, arrays, name, stop, label, kinked)
    if kinked:
        inward = {key: value * (1 - 1e-12) for key, value in params.items()}

        def clipped(moved):
            return TOKEN_LOSSES[objective](Batch(moved), inward, Stop()) * mask

        out["grad_log_probs_clipped"] = gradient(clipped, arrays, "log_probs", Stop(), label, True)
    return out


def expected_of_sequences(label, objective, params, arrays):
    """Losses of sequences, once and at each of their tokens."""
    stop, mask = Stop(), arrays["mask"]
    counts = mask.sum(1)

    def losses_of(moved):
        losses = SEQUENCE_LOSSES[objective](Batch(moved), params, stop)
        return torch.where(counts > 0, losses, 0.0)

    def at_tokens(moved):
        return losses_of(moved).unsqueeze(1) * mask

    with torch.no_grad():
        return {
            "losses": at_tokens(arrays),
            "sequence_losses": losses_of(arrays),
        } | {
            key: torch.enable_grad()(gradient)(f, arrays, "log_probs", stop, label)
            for key, f in (
                ("grad_log_probs", at_tokens),
                ("grad_of_sequence_losses", losses_of),
            )
        }


def expected_of_pairs(label, params, arrays):
    """P3O's coefficients and the losses of its two pair forms."""
    stop = Stop()
    with torch.no_grad():
        out = p3o(Batch(arrays), params, stop)
    stop.replay()
    for version in ("v1", "v2"):
        for side in ("1", "2"):

            def losses_of(moved, version=version):
                return p3o(Batch(moved), params, stop)[f"{version}_losses"]

            key = f"{version}_grad_{side}"
            out[key] = gradient(losses_of, arrays, f"s_{side}", stop, label)
    return out


def main(arguments):
    """Computes every case."""
    torch.set_num_threads(1)
    torch.set_default_dtype(F64)
    found = Cases()
    for objective, params, names, note in sequence_plan():

        def expected(label, name, arrays, objective=objective, params=params):
            if objective in SEQUENCE_LOSSES:
                return expected_of_sequences(label, objective, params, arrays)
            return expected_of_tokens(label, objective, params, arrays, name == "kink")

        found.add(objective, params, sequences, names, note, expected)
    for params, names, note in pair_plan():

        def expected(label, name, arrays, params=params):
            return expected_of_pairs(label, params, arrays)

        found.add("P3o", params, pairs, names, note, expected)
    write(
        NAME,
        "losses over sampled tokens: padded sequences -> losses of tokens and the gradients of "
        "their sum; P3O's pairs",
        ["torch.clamp", "torch.minimum", "torch.expm1", "torch.autograd.grad"],
        NOTES,
        found,
        arguments,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
