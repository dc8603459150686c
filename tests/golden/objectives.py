"""Golden vectors of every objective from a second source.

torch autograd in f64 written from the papers, without the Rust.

Run: `python tests/golden/objectives.py [--check]` (torch on the CPU).
It writes objectives_f64.json beside itself, or with --check exits with 1 if that file differs.
Every gradient is compared with central finite differences on the way.
"""

import sys

import torch
from golden_file import document, write_or_check
from independent import encode
from objectives_cases import plan
from objectives_inputs import make
from objectives_losses import LOSSES, Arrays
from oracle import Stop

NAME = "objectives_f64.json"
GRADIENTS = {
    "pair": {"chosen_policy": "grad_chosen", "rejected_policy": "grad_rejected"},
    "sequence": {"policy": "grad_response"},
    "judged_pair": {
        "chosen_policy": "grad_chosen",
        "rejected_policy": "grad_rejected",
        "verdict_chosen_policy": "grad_verdict_chosen",
        "verdict_rejected_policy": "grad_verdict_rejected",
    },
    "reward_pair": {"chosen": "grad_chosen", "rejected": "grad_rejected"},
    "reward": {"prediction": "grad_response"},
}
KINKED = ("Hinge", "Slic")

NOTES = [
    (
        "one entry of losses and of each gradient per unit; grad_* is the gradient of the unit's own "
        "loss by its own policy input; no reduction, no mean over units"
    ),
    (
        "the name of an input is unit/base, for pairs unit/base/score kind, then +option for each "
        "optional input given; an optional input that is not given is absent from the input and "
        "neutral (beta 1, margin 0, soft_label 1)"
    ),
    (
        "per-pair beta multiplies the objective's beta wherever that occurs, also in targets such as "
        "1/(2 beta), and lambda (TRL's beta), not gamma, delta, shift or weights; margin is "
        "subtracted from u"
    ),
    (
        "score kinds: win = win probabilities (Sppo), average = fused average log-probs (InfiFpo), "
        "reward = rewards (Rpo); other pair objectives must ignore the scores they get. sequence "
        "scores are average log-probs of an opponent (Poft)"
    ),
    "every average divides by max(tokens, 1); tokens are counts written as floats",
    (
        "inputs: random; wide = log-ratios (rewards, verdict gaps) of 0 and +-30; edge = 0 and 1 "
        "tokens, identical responses, log-ratios of 0, 0.5*h = 1 in the last pair (gradient 0 at the "
        "hinge's kink); extreme = +-1000; near_certain (Orpo) = average log-probs near 0"
    ),
    (
        "alpha is read with divergence Alpha only and then in the TRL 1.16 form; with "
        "length_normalized the score of each log-ratio is divided by the tokens, not the log-ratio"
    ),
    (
        "Lcpo*: soft_label is the annotator's reliability eta, always given: +reliability strictly "
        "inside (0, 1), +exact_reliability 1 and 0.5 without a clamp of eta; the posterior is detached"
    ),
    "Irepo: the margin is the target logit (0 if not given)",
    "Scir: detach_policy and detach_judge detach the whole side, its entropy included",
    (
        "reward_*, of every response = beta*beta_i*(policy - reference), never length-normalised but "
        "where a shift or log-odds are of averages (PointwiseLogistic, Lcpo); Cpo, LcpoCpo and Slic "
        "beta*beta_i*sum, or of the average that the loss compares; SimPo and LcpoSimPo "
        "beta*beta_i*average; Poft beta*average; InfiFpo beta*beta_i*(average - score); Orpo "
        "lambda*beta_i*average; AlphaPo beta*beta_i*(1 - p^-alpha)/alpha with p = exp(average); "
        "LogRatio and P3o the log-ratio, Nll 0; of verdicts their log-probs; of reward models the "
        "rewards"
    ),
    "tolerance: rtol 1e-9 with atol 1e-12 (times the weight or parameter that scales a loss)",
]


def check_gradient(label, losses_of, arrays, name, grad):
    """Compares a gradient with a five-point central difference."""
    x = arrays[name]
    step = torch.where(x == 0, 3e-4, (0.01 * x.abs()).clamp(max=3e-4))

    def at(k):
        return losses_of(arrays | {name: x + k * step})

    want = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    rounding = 64 * 2.0**-52 * (1 + at(0).abs() + x.abs()) / step
    tolerance = 1e-6 * grad.abs() + 1e-8 + rounding
    wrong = (want - grad).abs() > tolerance
    if label.split("/")[0] in KINKED:
        left, right = at(0) - at(-2), at(2) - at(0)
        larger = torch.maximum(left.abs(), right.abs())
        kink = (right - left).abs() > 0.1 * larger + tolerance * step
        wrong = torch.where(kink, grad != 0, wrong)
    assert not wrong.any(), (label, name, want[wrong], grad[wrong])


def expected(label, objective, unit, params, arrays):
    """Losses, gradients and rewards of a case."""
    stop = Stop()
    names = GRADIENTS[unit]
    leaves = {key: arrays[key].clone().requires_grad_() for key in names}
    losses, rewards = LOSSES[objective](Arrays(arrays | leaves), params, stop)
    grads = torch.autograd.grad(
        losses.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    stop.replay()

    def losses_of(moved):
        with torch.no_grad():
            return LOSSES[objective](Arrays(moved), params, stop)[0]

    out = {"losses": losses}
    for name, grad in zip(names, grads, strict=True):
        check_gradient(label, losses_of, arrays, name, grad)
        out[names[name]] = grad
    assert {key.replace("grad", "reward") for key in names.values()} == set(rewards), label
    out |= rewards
    for key, value in out.items():
        assert value.shape == losses.shape, (label, key)
        assert torch.isfinite(value).all(), (label, key, value)
    return out


def main(arguments):
    """Computes every case."""
    torch.set_num_threads(1)
    inputs, cases = {}, []
    for objective, unit, index, params, base, kind, options in plan():
        name, arrays = make(unit, base, kind, options)
        inputs.setdefault(name, encode(arrays))
        case_id = "/".join([objective, str(index), "+".join([base, *options])])
        values = expected(case_id, objective, unit, params, arrays)
        head = {"id": case_id, "objective": objective, "unit": unit, "params": params}
        cases.append(head | {"input": name, "expected": encode(values)})
    assert len({case["id"] for case in cases}) == len(cases)
    header = {
        "schema": "prefloss-golden/1",
        "file": NAME,
        "description": "every objective by itself: per-unit inputs -> per-unit losses, their "
        "gradients by the policy inputs, rewards",
        "functions": ["torch.nn.functional.logsigmoid", "torch.expm1", "torch.autograd.grad"],
        "provenance": "torch autograd f64 composed by this project from the papers",
        "packages": {"torch": torch.__version__.split("+")[0]},
        "count": len(cases),
        "encoding": "tensor={shape,dtype,data row-major}; every number is finite",
        "notes": NOTES,
    }
    write_or_check(NAME, document(header, inputs=inputs, cases=cases), arguments)
    print(f"{NAME}: {len(cases)} cases, {len(inputs)} inputs")


if __name__ == "__main__":
    main(sys.argv[1:])
