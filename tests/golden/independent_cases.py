"""Inputs, cases and notes of independent.py."""

import math

import torch

F64 = torch.float64

NOTES = [
    (
        "labels are already shifted: labels[t] is what logits[t] predicts; sequence s owns tokens "
        "cu_seqlens[s]..cu_seqlens[s+1]"
    ),
    (
        "a token is scored when its label is not ignore_index and its token weight (default 1) is "
        "not 0; token_logps is 0 elsewhere; ref_token_logps holds arbitrary values where the "
        "label is ignored, which must not be read"
    ),
    (
        "counts: scored tokens; weight_sums: their weights; logps / ref_logps: sums of "
        "weight*log-prob; all per sequence of the pack, in pack order"
    ),
    "params.temperature divides the logits only, never ref_token_logps",
    (
        "params.terms: loss = sum_k weight_k * reduction_k(term_losses[k]); mean divides by the "
        "number of items (pairs, or selected sequences), token_mean by the number of scored "
        "tokens of the selected sequences (at least 1), divisor by the number given"
    ),
    (
        "absent options of a term are neutral: weight 1, reduction mean, label_smoothing 0, "
        "beta_scale 1, margin 0, soft_label 1, pair_weight 1, length_normalized false; absent "
        "token_weights, upstream: 1"
    ),
    (
        "term_losses include the per-pair weight, not the term weight; a mean is never divided by "
        "the sum of pair weights"
    ),
    (
        "params.upstream scales grad_logits only; with params.upstream_per_pair grad_logits is "
        "that of sum_i up_i*term_losses[0][i] (no reduction, no term weight)"
    ),
    (
        "rewards and metrics belong to term 0 (the preference term); logps/chosen and "
        "logps/rejected are means over pairs of the summed weighted log-probs for every "
        "objective, also simpo and ipo"
    ),
    "length normalisation divides by max(count, 1), not by the sum of weights",
    (
        "hinge, robust and ipo take no soft label, ipo takes no margin; the per-pair weight "
        "applies to all; the gradient of hinge at its kink is 0"
    ),
    (
        "nll with sequences chosen takes the chosen sequence of every pair in pair order (twice "
        "if in two pairs), all takes every sequence of the pack, also empty ones; it uses the "
        "token weights"
    ),
    "simpo ignores ref_token_logps (ref_logps is still reported)",
    (
        "mask_dpo: spans are [start, end, factual], half open, from the first token of the "
        "sequence, on label positions; token_weights is the rule alone, effective_weights has 0 "
        "at ignored labels; a sequence without spans has weight 1 (drop_unlabelled: 0)"
    ),
    (
        "entropy cases: grad_logits is of sum_t grad_logp[t]*logp_t + grad_entropy[t]*H_t; "
        "entropy and grad_logits are 0 on rows with an ignored label; *_all_rows score the "
        "entropy of every row, ignored or not (log-probs stay 0 there)"
    ),
    (
        "tolerance: rtol 1e-9 with atol 1e-12; confident rows have entropies, log-probs and gradients "
        "near 0 whose last digits torch rounds away (absolute error about 1e-16)"
    ),
    (
        "inputs neg_inf*: 0*log 0 = 0; neg_inf_label has one label of probability 0 (log-prob "
        "-Infinity, its gradient is the finite limit one-hot minus softmax)"
    ),
]


def token_logps(inp, logits, temperature):
    """Log-prob of each label under softmax(logits / temperature), 0 where the label is ignored."""
    kept = inp["labels"] != inp["ignore_index"]
    index = torch.where(kept, inp["labels"], 0)
    logp = torch.log_softmax(logits / temperature, -1).gather(1, index[:, None])[:, 0]
    return torch.where(kept, logp, 0.0), kept


def pack(seed, lengths, vocab, *, ignore=-100, scale=2.0, prompt=1, drift=0.7):
    """A ragged pack; `prompt` ignored labels lead each sequence of more than 3, one ends it."""
    g = torch.Generator().manual_seed(seed)
    cu = [0]
    for length in lengths:
        cu.append(cu[-1] + length)
    logits = scale * torch.randn(cu[-1], vocab, generator=g, dtype=F64)
    labels = torch.randint(0, vocab, (cu[-1],), generator=g)
    if 0 <= ignore < vocab:
        labels = torch.where(labels == ignore, (ignore + 1) % vocab, labels)
    for a, length in zip(cu, lengths, strict=False):
        if length > 3:
            labels[a : a + prompt] = ignore
            labels[a + length - 1] = ignore
    inp = {
        "logits": logits,
        "labels": labels,
        "ignore_index": ignore,
        "cu_seqlens": torch.tensor(cu),
    }
    return with_reference(inp, g, drift)


def with_reference(inp, generator, drift):
    """Reference log-probs near the policy's; arbitrary values where the label is ignored."""
    logp, kept = token_logps(inp, inp["logits"], 1.0)
    noise = torch.randn(len(logp), generator=generator, dtype=F64)
    ref = torch.clamp(logp.round(decimals=3) + drift * noise, max=-1e-3)
    return inp | {"ref_token_logps": torch.where(kept, ref, 7.0 + noise)}


def make_inputs():
    """The packs."""
    six = [7, 5, 6, 8, 3, 6]
    base = pack(10, six, 11, prompt=2)
    g = torch.Generator().manual_seed(99)
    inputs = {
        "base": base,
        "far_reference": with_reference(base, g, 60.0),
        "pad0": pack(11, [6, 5, 7, 4], 9, ignore=0),
        "ignore7": pack(12, [6, 5, 7, 4], 9, ignore=7),
        "empties": pack(13, [0, 5, 4, 0, 0, 6, 2, 0], 9),
        "one_pair": pack(14, [1, 1], 3),
        "vocab1": pack(15, [2, 3], 1),
        "vocab2": pack(16, [3, 2], 2),
        "wide": pack(17, [3, 5], 259),
        "shared": pack(18, [5, 6, 4, 7], 11),
    }
    empties = inputs["empties"]
    empties["labels"][5:9] = -100  # sequence 2: tokens, none of them scored
    offset = pack(19, [5, 4, 6, 5], 11)
    third = torch.arange(len(offset["logits"]))[:, None] % 3 == 0
    offset["logits"] += torch.where(third, -1e4, 1e4)
    confident = pack(20, [5, 4, 6, 5], 11)
    rows = torch.arange(len(confident["logits"]))
    top = torch.where(rows % 3 == 2, (rows * 5) % 11, confident["labels"].clamp(min=0))
    confident["logits"][rows, top] = confident["logits"].amax(-1) + 60.0
    inputs["offset"] = with_reference(offset, g, 0.7)
    inputs["confident"] = with_reference(confident, g, 0.7)

    holes = pack(21, [6, 5], 12)
    never = torch.rand(holes["logits"].shape, generator=g) < 0.3
    never[torch.arange(11), holes["labels"].clamp(min=0)] = False
    never[3] = True  # one value left: probability 1
    never[3, holes["labels"][3]] = False
    never[:, 9] = holes["labels"] != 9
    holes["logits"][never] = -math.inf
    holes["logits"][7] -= 900 * (torch.arange(12) % 2)  # probabilities that underflow to 0
    inputs["neg_inf"] = with_reference(holes, g, 0.7)
    lost = {k: v.clone() if torch.is_tensor(v) else v for k, v in inputs["neg_inf"].items()}
    lost["logits"][2, lost["labels"][2]] = -math.inf
    inputs["neg_inf_label"] = lost
    return inputs


# ---- cases --------------------------------------------------------------------------------------

THREE = [[2, 0], [1, 4], [5, 3]]
MANY = [[0, 1], [0, 2], [3, 1]]
BLANK = [[0, 1], [5, 2], [3, 7], [2, 4], [1, 6]]
PAIRS = {key: [[0, 1], [3, 2]] for key in ("pad0", "ignore7", "offset", "confident")}
PAIRS |= {key: [[0, 1]] for key in ("one_pair", "vocab1", "vocab2", "wide", "neg_inf")}
PAIRS |= {"base": THREE, "far_reference": THREE, "shared": MANY, "empties": BLANK}

DPO = {"loss": "dpo", "beta": 0.3}
HINGE = {"loss": "hinge", "beta": 0.3}
IPO = {"loss": "ipo", "beta": 0.3}
IPO_NORM = IPO | {"length_normalized": True}
PLAIN = {
    "dpo": DPO,
    "robust": {"loss": "robust", "beta": 0.3, "label_smoothing": 0.1},
    "ipo": IPO,
    "ipo_norm": IPO_NORM,
    "hinge": HINGE,
    "simpo": {"loss": "simpo", "beta": 2.0, "gamma": 0.5},
}
SCALED = {"beta_scale": [0.5, 2.0, 1.25], "pair_weight": [1.5, 0.3, 2.0]}
SHIFTED = SCALED | {"margin": [0.3, -0.7, 1.1]}
SOFT = {"soft_label": [0.9, 0.25, 1.0]}
EVERY = SHIFTED | SOFT | {"label_smoothing": 0.1}
FULL = {
    "dpo": DPO | EVERY,
    "robust": PLAIN["robust"] | SHIFTED | {"label_smoothing": 0.2},
    "ipo": IPO | SCALED,
    "ipo_norm": IPO_NORM | SCALED,
    "hinge": HINGE | SHIFTED,
    "simpo": PLAIN["simpo"] | EVERY,
}


def nll(reduction, weight=1.0, **options):
    """A negative log-likelihood term."""
    term = {"loss": "nll", "weight": weight, "sequences": "chosen", "reduction": reduction}
    return term | options


def preference_cases(g):
    """(id, kind, input, params); the input is the middle of the id."""
    cases = []

    def add(case_id, *terms, **options):
        name = case_id.split("/")[1]
        params = {"temperature": 1.0, "pairs": PAIRS[name]} | options | {"terms": list(terms)}
        cases.append((case_id, "preference", name, params))

    ragged = torch.tensor([1.0, 0.5, 0.0, -0.75, 2.0, 0.375, 1.0], dtype=F64)
    ragged = ragged[torch.randint(0, 7, (35,), generator=g)]
    mixed = {"token_weights": ragged, "temperature": 0.7}
    for name, term in PLAIN.items():
        full = FULL[name]
        add(f"{name}/base/default", term)
        add(f"{name}/base/per_pair", full)
        add(f"{name}/base/token_weights_t0.7", full, **mixed)
        add(f"{name}/shared/several_pairs", full)
        add(f"{name}/empties/default", term)
        if name in ("dpo", "ipo", "simpo"):
            add(f"{name}/base/sum", full | {"reduction": "sum"})
            upstream = [1.0, -0.4, 2.5]
            add(
                f"{name}/base/upstream_per_pair", full | {"weight": 3.0}, upstream_per_pair=upstream
            )
        if name in ("dpo", "ipo", "robust", "hinge"):
            add(f"{name}/far_reference/tails", term | {"beta": 1.0})
    for key, value in (SHIFTED | SOFT | {"label_smoothing": 0.2}).items():
        add(f"dpo/base/{key}", DPO | {key: value})
    add("dpo/base/pair_weight_zero", DPO | {"pair_weight": [1.0, 0.0, 0.5]})
    add("dpo/base/soft_label_zero_half", DPO | {"soft_label": [0.0, 0.5, 1.0]})
    add("dpo/base/divisor", DPO | {"reduction": "divisor", "divisor": 8.0})
    add("dpo/base/term_weight", DPO | {"weight": 0.5})
    add("dpo/base/t0.7", DPO, temperature=0.7)
    add("dpo/base/token_weights", DPO, token_weights=ragged)
    add("dpo/base/upstream-2.5", FULL["dpo"], upstream=-2.5)
    add("hinge/base/sum_upstream-2.5", HINGE | {"reduction": "sum"}, upstream=-2.5)
    add("simpo/base/gamma0", PLAIN["simpo"] | {"gamma": 0.0})
    add("simpo/base/t0.7", PLAIN["simpo"], temperature=0.7)
    add("robust/base/smoothing0", PLAIN["robust"] | {"label_smoothing": 0.0})
    add("robust/base/upstream_per_pair", PLAIN["robust"], upstream_per_pair=[0.0, 1.0, 0.0])
    add("dpo/shared/upstream_per_pair", DPO, upstream_per_pair=[0.5, -1.0, 2.0])
    add("dpo/shared/both_orders", DPO, pairs=[[0, 1], [1, 2], [2, 0], [0, 1]])

    token_mean = nll("token_mean")
    every = {"sequences": "all"}
    norm = {"length_normalized": True}
    for reduction in ("mean", "sum"):
        add(f"dpo+nll/base/{reduction}", DPO, nll(reduction, 0.2))
        add(f"dpo+nll_norm/base/{reduction}", DPO, nll(reduction, 0.2, **norm))
    add("dpo+nll/base/token_mean", DPO, nll("token_mean", 0.2))
    add("dpo+nll/base/divisor", DPO, nll("divisor", 0.2, divisor=7.0))
    add("dpo+nll/base/all_token_mean", DPO, nll("token_mean", 0.2, **every))
    add("dpo+nll_norm/base/all_mean", DPO, nll("mean", 0.2, **every, **norm))
    add("dpo+nll/shared/chosen_twice", DPO, nll("mean"))
    add("dpo+nll/shared/chosen_twice_token_mean", DPO, token_mean)
    for reduction in ("token_mean", "mean"):
        terms = FULL["simpo"], nll(reduction, 0.6)
        add(f"simpo+nll/base/{reduction}_mixed", *terms, **mixed, upstream=-2.5)
    add("dpo+hinge+nll/base/mpo", DPO | {"weight": 0.8}, HINGE | {"weight": 0.2}, token_mean)
    add("nll/base/chosen_token_mean", token_mean)
    add("ipo_norm+nll/pad0/token_mean", IPO_NORM, token_mean)
    add("dpo+nll/empties/token_mean", DPO, token_mean)
    add("dpo+nll_norm/empties/all_mean", DPO, nll("mean", **every, **norm))
    add("dpo+nll/empties/nothing_token_mean", DPO, token_mean, pairs=[[0, 1], [2, 5]])

    for name in ("pad0", "ignore7", "one_pair", "vocab1", "vocab2", "wide", "neg_inf"):
        add(f"dpo/{name}/default", DPO)
    for name in ("pad0", "ignore7", "wide"):
        add(f"simpo/{name}/t0.7", PLAIN["simpo"], temperature=0.7)
    for name in ("offset", "confident"):
        for temperature in (1.0, 2.0):
            add(f"dpo/{name}/t{temperature:g}", DPO, temperature=temperature)
        add(f"simpo+nll/{name}/token_mean", PLAIN["simpo"], token_mean)
    return cases


def mask_dpo_cases():
    """The Mask-DPO cases; in base, tokens 0, 1 and the last of sequences but 4 are ignored."""
    spans = [
        [[2, 4, True], [4, 5, False]],
        [[2, 3, True], [3, 4, False]],
        [[2, 3, False], [3, 5, True]],
        [[2, 4, False], [5, 7, True]],
        [[0, 1, True], [1, 2, False]],
        [],
    ]
    chosen_out = [*spans[:2], [[2, 5, False]], *spans[3:]]
    both_out = [[[2, 6, True]], *chosen_out[1:]]
    only_out = [both_out[0], [], both_out[2], [], [], []]
    empties = [[], [[1, 3, True]], [], [], [], [[1, 4, False]], [], []]
    cases = []
    for case_id, case_spans, options in (
        ("base/default", spans, {}),
        ("base/drop_unlabelled", spans, {"drop_unlabelled": True}),
        ("base/other_roles", spans, {"pairs": [[0, 2], [4, 1], [3, 5]]}),
        ("base/chosen_fully_masked", chosen_out, {}),
        ("base/both_fully_masked", both_out, {}),
        ("base/only_fully_masked", only_out, {"pairs": [[2, 0]]}),
        ("base/no_spans", [[]] * 6, {}),
        ("base/no_spans_drop", [[]] * 6, {"drop_unlabelled": True}),
        ("base/mixed_t0.7", spans, {"temperature": 0.7, "upstream": -2.5, "terms": [FULL["dpo"]]}),
        ("empties/default", empties, {"pairs": [[0, 1], [5, 2], [3, 7], [4, 6]]}),
    ):
        params = {"temperature": 1.0, "pairs": THREE, "spans": case_spans, "drop_unlabelled": False}
        params |= {"terms": [DPO]} | options
        cases.append((f"mask_dpo/{case_id}", "mask_dpo", case_id.split("/")[0], params))
    return cases


def entropy_cases(g, inputs):
    """The entropy cases: random gradients with zeros, then one of the two alone."""
    cases = []
    three = (1.0, 0.7, 2.0)
    temperatures = {"neg_inf": three, "shared": three, "neg_inf_label": (1.0,)}
    for name in ("neg_inf", "neg_inf_label", "shared", "offset", "confident", "vocab1", "vocab2"):
        n = len(inputs[name]["labels"])
        for temperature in temperatures.get(name, (1.0, 2.0)):
            params = {"temperature": temperature}
            for key in ("grad_logp", "grad_entropy"):
                grad = torch.randn(n, generator=g, dtype=F64)
                params[key] = torch.where(torch.rand(n, generator=g) < 0.25, 0.0, grad)
            cases.append((f"entropy/{name}/t{temperature:g}", "entropy", name, params))
    zeros = torch.zeros(len(inputs["shared"]["labels"]), dtype=F64)
    for key in ("logp", "entropy"):
        params = {"temperature": 1.0, "grad_logp": zeros, "grad_entropy": zeros}
        params[f"grad_{key}"] = zeros + 1
        cases.append((f"entropy/shared/{key}_only", "entropy", "shared", params))
    return cases
