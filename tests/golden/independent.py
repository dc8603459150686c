"""Golden vectors from a second source.

torch autograd in f64 written from the papers, without the Rust.

Run: `python tests/golden/independent.py OUTDIR` (torch on the CPU).
It writes OUTDIR/independent_f64.json and compares every gradient with central finite differences
on the way.
"""

import json
import math
import platform
import sys
from itertools import pairwise
from pathlib import Path

import torch
from independent_cases import (
    F64,
    NOTES,
    entropy_cases,
    make_inputs,
    mask_dpo_cases,
    preference_cases,
    token_logps,
)
from torch.nn.functional import logsigmoid

NAME = "independent_f64.json"


def softplus(x):
    """log(1 + e^x); torch's own softplus is the identity above 20, off in the tenth digit."""
    return -logsigmoid(-x)


def smoothed(u, soft, eps):
    """Binary cross-entropy of sigmoid(u) against the smoothed soft label."""
    w = soft * (1 - eps) + (1 - soft) * eps
    return w * softplus(-u) + (1 - w) * softplus(u)


def pair_losses(term, chosen, rejected):
    """Per-pair losses and rewards; each side is (log-prob sums, reference sums, token counts)."""
    (sw, rw, nw), (sl, rl, nl) = chosen, rejected
    n = len(sw)
    beta = term["beta"] * per_pair(term, "beta_scale", 1.0, n)
    margin = per_pair(term, "margin", 0.0, n)
    soft = per_pair(term, "soft_label", 1.0, n)
    weight = per_pair(term, "pair_weight", 1.0, n)
    eps = term.get("label_smoothing", 0.0)
    lw, ll = nw.clamp(min=1).to(F64), nl.clamp(min=1).to(F64)
    kind = term["loss"]
    if kind == "simpo":
        aw, al = sw / lw, sl / ll
        losses = smoothed(beta * (aw - al) - term["gamma"] - margin, soft, eps)
        return weight * losses, beta * aw, beta * al
    dw, dl = sw - rw, sl - rl
    u = beta * (dw - dl) - margin
    if kind == "dpo":
        losses = smoothed(u, soft, eps)
    elif kind == "robust":
        losses = ((1 - eps) * softplus(-u) - eps * softplus(u)) / (1 - 2 * eps)
    elif kind == "hinge":
        losses = torch.relu(1 - u)
    elif kind == "ipo":
        h = dw / lw - dl / ll if term.get("length_normalized") else dw - dl
        losses = (h - 1 / (2 * beta)) ** 2
    else:
        raise ValueError(kind)
    return weight * losses, beta * dw, beta * dl


def per_pair(term, key, default, n):
    """The per-pair vector `key`, or `default` for every pair."""
    return torch.tensor(term.get(key, [default] * n), dtype=F64)


def reduce(term, losses, tokens):
    """A term's value; `tokens` is the scored token count of its sequences."""
    kind = term.get("reduction", "mean")
    if kind == "divisor":
        return losses.sum() / term["divisor"]
    by = {"mean": len(losses), "sum": 1, "token_mean": max(int(tokens), 1)}
    return losses.sum() / by[kind]


def entropy(logits, temperature):
    """Entropy of softmax(logits / temperature) per row, with 0*log 0 = 0."""
    logp = torch.log_softmax(logits / temperature, -1)
    return -(logp.exp() * torch.where(logp == -math.inf, 0.0, logp)).sum(-1)


def mask_dpo_weights(inp, pairs, spans, drop_unlabelled):
    """Mask-DPO token weights: factual sentences of the chosen, non-factual ones of the rejected."""
    cu = inp["cu_seqlens"].tolist()
    weights = torch.full((cu[-1],), 0.0 if drop_unlabelled else 1.0, dtype=F64)
    chosen = {c for c, _ in pairs}
    roles = [seq for pair in pairs for seq in pair]
    assert len(set(roles)) == len(roles)  # one role per sequence
    for seq, seq_spans in enumerate(spans):
        for start, end, factual in seq_spans:
            weights[cu[seq] + start : cu[seq] + end] = float(factual == (seq in chosen))
    return weights


def by_sequence(inp, values):
    """Sums of a per-token tensor over the sequences of the pack."""
    cu = inp["cu_seqlens"].tolist()
    return torch.stack([values[a:b].sum() for a, b in pairwise(cu)])


def forward(inp, params, logits):
    """The expected values of a preference case, attached to `logits`, and what to differentiate."""
    logp, kept = token_logps(inp, logits, params["temperature"])
    weights = params.get("token_weights")
    weights = torch.ones_like(logp) if weights is None else weights
    scored = kept & (weights != 0)
    weights = torch.where(scored, weights, 0.0)
    logp = torch.where(scored, logp, 0.0)
    ref = torch.where(scored, inp["ref_token_logps"], 0.0)
    sums, refs = by_sequence(inp, weights * logp), by_sequence(inp, weights * ref)
    counts = by_sequence(inp, scored.to(torch.int64))
    chosen, rejected = torch.tensor(params["pairs"]).T
    out = {
        "token_logps": logp,
        "logps": sums,
        "ref_logps": refs,
        "counts": counts,
        "weight_sums": by_sequence(inp, weights),
    }
    term_losses, values = [], []
    for k, term in enumerate(params["terms"]):
        if term["loss"] == "nll":
            ids = chosen if term["sequences"] == "chosen" else torch.arange(len(sums))
            losses = -sums[ids]
            if term.get("length_normalized"):
                losses = losses / counts[ids].clamp(min=1)
            tokens = counts[ids].sum()
        else:
            sides = [(sums[ids], refs[ids], counts[ids]) for ids in (chosen, rejected)]
            losses, reward_w, reward_l = pair_losses(term, *sides)
            tokens = counts[chosen].sum() + counts[rejected].sum()
            if k == 0:
                out |= {"rewards_chosen": reward_w, "rewards_rejected": reward_l}
                out["metrics"] = {
                    "rewards/chosen": reward_w.mean(),
                    "rewards/rejected": reward_l.mean(),
                    "rewards/accuracies": (reward_w > reward_l).to(F64).mean(),
                    "rewards/margins": (reward_w - reward_l).mean(),
                    "logps/chosen": sums[chosen].mean(),
                    "logps/rejected": sums[rejected].mean(),
                }
        term_losses.append(losses)
        values.append(reduce(term, losses, tokens))
    loss = sum(t.get("weight", 1.0) * v for t, v in zip(params["terms"], values, strict=True))
    out |= {"term_losses": term_losses, "term_values": values, "loss": loss}
    if "upstream_per_pair" in params:
        objective = (torch.tensor(params["upstream_per_pair"], dtype=F64) * term_losses[0]).sum()
    else:
        objective = params.get("upstream", 1.0) * loss
    return out, objective


def check_gradient(objective, logits, grad):
    """Compares a gradient with central differences along two random directions."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        direction = torch.randn(logits.shape, generator=generator, dtype=F64)
        step = 1e-4
        with torch.no_grad():
            want = (objective(logits + step * direction) - objective(logits - step * direction)) / (
                2 * step
            )
        got = (grad * direction).sum()
        assert abs(want - got) <= 2e-6 * (1 + abs(want)), (float(want), float(got))


def preference(inp, params):
    """Expected values of a preference case."""
    logits = inp["logits"].clone().requires_grad_()
    out, objective = forward(inp, params, logits)
    (grad,) = torch.autograd.grad(objective, logits)
    assert torch.isfinite(grad).all()
    ignored = inp["labels"] == inp["ignore_index"]
    assert (grad[ignored] == 0).all()
    check_gradient(lambda x: forward(inp, params, x)[1], inp["logits"], grad)
    if "metrics" in out:  # no accuracy that rounding could turn over
        gap = (out["rewards_chosen"] - out["rewards_rejected"]).abs()
        assert ((gap == 0) | (gap > 1e-6)).all()
    return out | {"grad_logits": grad}


def mask_dpo(inp, params):
    """Expected values of a Mask-DPO case: the weights, then plain DPO with them."""
    weights = mask_dpo_weights(inp, params["pairs"], params["spans"], params["drop_unlabelled"])
    kept = inp["labels"] != inp["ignore_index"]
    out = {"token_weights": weights, "effective_weights": torch.where(kept, weights, 0.0)}
    return out | preference(inp, params | {"token_weights": weights})


def entropies(inp, params):
    """Expected values of an entropy case."""
    temperature = params["temperature"]

    def run(logits, all_rows):
        logp, kept = token_logps(inp, logits, temperature)
        h = entropy(logits, temperature)
        h = h if all_rows else torch.where(kept, h, 0.0)
        return logp, h, (params["grad_logp"] * logp + params["grad_entropy"] * h).sum()

    out = {}
    for suffix, all_rows in (("", False), ("_all_rows", True)):
        logits = inp["logits"].clone().requires_grad_()
        logp, h, objective = run(logits, all_rows)
        (grad,) = torch.autograd.grad(objective, logits)
        assert torch.isfinite(grad).all()
        if torch.isfinite(logp).all():
            check_gradient(lambda x, rows=all_rows: run(x, rows)[2], inp["logits"], grad)
        out |= {"token_logps": logp, "entropy" + suffix: h, "grad_logits" + suffix: grad}
    return out


RUN = {"preference": preference, "mask_dpo": mask_dpo, "entropy": entropies}


def number(x):
    """A JSON number, or the name of a non-finite one."""
    if isinstance(x, int | bool) or math.isfinite(x):
        return x + 0.0 if isinstance(x, float) else x
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def encode(value):
    """A value in the encoding of the golden files."""
    if torch.is_tensor(value):
        value = value.detach()
        if value.dim() == 0:
            return number(value.item())
        data = [number(x) for x in value.flatten().tolist()]
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "data": data,
        }
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, list) else value


def nonfinite(value, path):
    """The places of `value` that are not finite."""
    if torch.is_tensor(value):
        bad = int((~torch.isfinite(value)).sum())
        return [f"{path}.data[{bad} of {value.numel()}]" if value.dim() else path] if bad else []
    if isinstance(value, list):
        value = dict(enumerate(value))
    items = value.items() if isinstance(value, dict) else ()
    return [place for k, v in items for place in nonfinite(v, f"{path}.{k}")]


INPUTS = make_inputs()


def main(out_dir):
    """Computes every case and writes the file."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(7)
    cases = []
    for case_id, kind, name, params in (
        preference_cases(g) + mask_dpo_cases() + entropy_cases(g, INPUTS)
    ):
        expected = RUN[kind](INPUTS[name], params)
        head = {"id": case_id, "kind": kind, "input": name, "params": encode(params)}
        cases.append(
            head | {"expected": encode(expected), "nonfinite": nonfinite(expected, "expected")}
        )
    assert len({case["id"] for case in cases}) == len(cases)
    document = {
        "schema": "prefloss-golden/1",
        "file": NAME,
        "description": "fused preference losses end to end: a ragged pack of logits -> token "
        "log-probs -> sequence sums -> loss, rewards, metrics and the gradient to the logits",
        "functions": ["torch.log_softmax", "torch.nn.functional.logsigmoid", "torch.autograd.grad"],
        "provenance": "torch autograd f64 composed by this project from the papers",
        "packages": {"python": platform.python_version(), "torch": torch.__version__},
        "encoding": "tensor={shape,dtype,data row-major}; non-finite floats are the strings "
        "NaN/Infinity/-Infinity and are listed in case.nonfinite (expected values); "
        "inputs neg_inf* hold -Infinity logits",
        "notes": NOTES,
        "inputs": encode(INPUTS),
        "cases": cases,
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    (Path(out_dir) / NAME).write_text(text + "\n", encoding="utf-8")
    print(f"{NAME}: {len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
