"""The inputs and cases of divergence.py."""

import math

import torch
from objectives_inputs import Draw, vector

TEMPERATURES = ((0.7, 1.6), (2.0, 0.5), (1.0, 0.9), (1.3, 1.0))
ADAPTIVE = {"name": "align_distil", "beta": 0.1, "ratio": 10.0, "doubled": True}


def logits(draw, tokens, vocab):
    return draw.normal(2.0, tokens * vocab).view(tokens, vocab)


def upstream(draw, tokens):
    """Of both signs; the second token's is 0."""
    signs = [[1, 0, -1][t % 3] for t in range(tokens)]
    return vector(signs) * draw.uniform(0.2, 1.8, tokens)


def raise_one(z, row, column):
    z[row, column] = z[row].max() + 30


def forbid(draw, tokens, vocab, keep=2):
    """A mask of about a third of the columns, never all but `keep`."""
    out = torch.zeros(tokens, vocab, dtype=torch.bool)
    for t in range(tokens):
        order = draw.uniform(0, 1, vocab).argsort()
        out[t, order[: min(max(1, vocab // 3), vocab - keep)]] = True
    return out


# ---- dense teachers -----------------------------------------------------------------------------


def dense(pattern, count, seed):
    """Student, `count` teachers and temperatures."""
    draw = Draw(3000 + seed)
    tokens, vocab = 3 + seed % 4, 5 + seed % 9
    if pattern == "vocab_1":
        vocab = 1
    width = vocab + {"wide": 4, "narrow": -2 - seed % 2}.get(pattern, 0)
    student = logits(draw, tokens, vocab)
    teachers = [logits(draw, tokens, width) for _ in range(count)]
    temperatures = TEMPERATURES[seed % 4] if pattern in ("temperatures", "vocab_1") else (1.0, 1.0)
    columns = torch.arange(tokens) % min(vocab, width)
    if pattern == "offset":
        student += 1e4 * vector([1, -1, 0, 1, -1, 0])[:tokens, None]
        for i, z in enumerate(teachers):
            z += 1e4 * vector([-1, 1, 1, 0, -1, 1])[:tokens, None].roll(i, 0)
        temperatures = TEMPERATURES[seed % 4]
    elif pattern == "confident":
        # sure student; sure teacher; both of one column; both of different columns
        for t in range(tokens):
            if t % 4 != 1:
                raise_one(student, t, columns[t])
            for z in teachers[: 1 if t % 2 else count] if t % 4 != 0 else ():
                raise_one(z, t, (columns[t] + (t % 4 == 3)) % vocab)
    elif pattern == "forbidden":
        mask = forbid(draw, tokens, vocab)
        for z in (student, *teachers):
            z[mask] = -math.inf
    elif pattern == "teacher_forbids":
        teachers[0][forbid(draw, tokens, vocab)] = -math.inf
    elif pattern == "student_forbids":
        student[forbid(draw, tokens, vocab)] = -math.inf
    elif pattern == "equal":
        temperatures = (0.8, 0.8) if seed % 2 else (1.0, 1.0)
        for z in teachers:
            z[: tokens - 1] = student[: tokens - 1]
    elif pattern == "one_hot":
        hot = teachers[0].gather(1, columns[:, None])
        teachers[0] = torch.full_like(teachers[0], -math.inf).scatter(1, columns[:, None], hot)
    elif pattern == "wide":
        for z in teachers:
            z[0, -1] = z[0].max() + 3
    elif pattern == "narrow":
        student[0, -1] = student[0].max() + 3
    return {
        "student": student,
        "teachers": teachers,
        "temperatures": temperatures,
        "upstream": upstream(draw, tokens),
    }


EVERYWHERE = (
    "plain",
    "temperatures",
    "offset",
    "confident",
    "forbidden",
    "equal",
    "wide",
    "narrow",
    "vocab_1",
)
# where the divergence is finite though the supports differ
TEACHER_LESS = (*EVERYWHERE, "teacher_forbids", "one_hot")
STUDENT_LESS = (*EVERYWHERE, "student_forbids")
EITHER = (*TEACHER_LESS, "student_forbids")
FEW = ("plain", "temperatures")
COMBINED = (*FEW, "offset", "confident", "forbidden", "teacher_forbids", "wide", "narrow")


def advantage(beta=1.0, low=None, high=None):
    return {"beta": beta, "low": low, "high": high}


def single_plan():
    """(divergence, params, patterns) with one teacher."""
    yield "forward_kl", {}, (*TEACHER_LESS, "student_forbids")
    yield "reverse_kl", {}, (*STUDENT_LESS, "teacher_forbids", "one_hot")
    yield "symmetric_kl", {"reverse": 0.5}, (*EVERYWHERE, "student_forbids")
    yield "symmetric_kl", {"reverse": 0.2}, (*FEW, "offset", "confident")
    yield "symmetric_kl", {"reverse": 0.0}, ("plain", "teacher_forbids")
    yield "symmetric_kl", {"reverse": 1.0}, ("plain", "student_forbids")
    yield "jensen_shannon", {"beta": 0.5}, EITHER
    yield "jensen_shannon", {"beta": 0.1}, (*FEW, "confident", "one_hot", "student_forbids")
    yield "jensen_shannon", {"beta": 0.9}, (*FEW, "confident", "teacher_forbids")
    yield "jensen_shannon", {"beta": 0.0}, (*FEW, "one_hot", "student_forbids")
    yield "jensen_shannon", {"beta": 1.0}, (*FEW, "student_forbids", "one_hot")
    for name in ("skew_forward_kl", "skew_reverse_kl"):
        yield name, {"alpha": 0.1}, EITHER
        yield name, {"alpha": 0.5}, (*FEW, "confident")
        yield name, {"alpha": 0.0}, ("plain", "confident")
        yield name, {"alpha": 1.0}, ("temperatures",)
    yield "total_variation", {}, EITHER
    yield "soft_cross_entropy", {}, (*TEACHER_LESS, "student_forbids")
    yield "expected_advantage", advantage(), (*EVERYWHERE, "teacher_forbids")


def several_plan():
    """(divergence, params, rule, coefficients, patterns) with other teachers."""
    mix, contrast, three = (0.6, 0.4), (1.5, -0.5), (1.0, 0.75, -0.75)
    rule = {"name": "combination"}
    for name, params in (("forward_kl", {}), ("reverse_kl", {}), ("jensen_shannon", {"beta": 0.3})):
        patterns = COMBINED if name != "reverse_kl" else (*FEW, "offset", "confident", "forbidden")
        yield name, params, rule, contrast, patterns
        yield name, params, rule, mix, ("temperatures", "equal", "confident")
        yield name, params, rule, three, ("plain", "offset", "forbidden")
    yield "forward_kl", {}, rule, (2.0,), FEW
    yield "reverse_kl", {}, rule, (0.5,), ("confident",)
    for name, params in (
        ("symmetric_kl", {"reverse": 0.7}),
        ("skew_forward_kl", {"alpha": 0.2}),
        ("skew_reverse_kl", {"alpha": 0.2}),
        ("total_variation", {}),
        ("soft_cross_entropy", {}),
    ):
        yield name, params, rule, contrast, ("temperatures",)
        yield name, params, rule, three, ("plain",)
    for params in (advantage(), advantage(0.5, -1.0, 1.5)):
        yield "expected_advantage", params, rule, (1.0, -1.0), (*COMBINED, "one_hot")
    yield "expected_advantage", advantage(1.0, 1e-8, 1 - 1e-8), rule, (1.0, -1.0), FEW
    yield "expected_advantage", advantage(2.0, -0.5), rule, (1.0, -1.0), ("plain", "one_hot")
    yield "expected_advantage", advantage(2.0, None, 0.5), rule, (1.0, -1.0), ("temperatures",)
    yield "expected_advantage", advantage(0.7), rule, (1.0, 0.5, -1.5), ("plain", "vocab_1")
    sets = (*FEW, "offset", "confident", "forbidden", "equal", "wide", "narrow", "vocab_1")
    yield "reverse_kl", {}, ADAPTIVE, None, sets
    halved = ADAPTIVE | {"beta": 0.3, "ratio": 2.0, "doubled": False}
    yield "reverse_kl", {}, halved, None, (*FEW, "student_forbids")
    for name, params in (
        ("forward_kl", {}),
        ("jensen_shannon", {"beta": 0.5}),
        ("total_variation", {}),
        ("soft_cross_entropy", {}),
    ):
        yield name, params, halved, None, ("temperatures", "teacher_forbids")


def dense_cases():
    """Every dense case: (name, pattern, arguments, arrays)."""
    plans = [(*rest, {"name": "single"}, (1.0,), p) for *rest, p in single_plan()]
    seed = 0
    for divergence, params, rule, coefficients, patterns in plans + list(several_plan()):
        for pattern in patterns:
            count = 2 if coefficients is None else len(coefficients)
            arrays = dense(pattern, count, seed)
            given = coefficients or (None,) * count
            yield divergence, params, rule, given, pattern, arrays
            seed += 1


# ---- sparse teachers ----------------------------------------------------------------------------


def sparse(pattern, seed):
    """Student, listed ids and their log-probs."""
    draw = Draw(5000 + seed)
    tokens, vocab = 3 + seed % 3, 5 + seed % 8
    k = {"one_hot": 1, "k_1": 1, "k_all_but_1": vocab - 1}.get(pattern, 2 + seed % 3)
    if pattern.startswith("full"):
        k = vocab
    if pattern == "vocab_1":
        vocab = k = 1
    student = logits(draw, tokens, vocab)
    full = torch.log_softmax(logits(draw, tokens, vocab), -1)
    full -= draw.uniform(0.01, 0.3, tokens)[:, None]  # truncated teachers lack a little more
    ids = full.argsort(-1, descending=True)[:, :k]
    if pattern != "top":
        ids = torch.stack([draw.uniform(0, 1, vocab).argsort()[:k] for _ in range(tokens)])
    listed = full.gather(1, ids).round(decimals=4)
    others = torch.ones_like(full, dtype=torch.bool).scatter(1, ids, False)
    if pattern == "offset":
        student += 1e4 * vector([1, -1, 1, 0, -1])[:tokens, None]
    elif pattern == "confident":
        # of a listed id, then of another
        for t in range(tokens):
            raise_one(student, t, ids[t, 0] if t % 2 == 0 else others[t].nonzero()[0, 0])
    elif pattern == "forbids_unlisted":
        student[others & (draw.uniform(0, 1, tokens * vocab).view(tokens, vocab) < 0.5)] = -math.inf
    elif pattern == "forbids_all_unlisted":
        student[others] = -math.inf
    elif pattern == "forbids_listed":
        student.scatter_(1, ids[:, :1], -math.inf)
    elif pattern in ("one_hot", "vocab_1"):
        listed = torch.zeros_like(listed)
    elif pattern == "zero_listed":
        listed[:, 0] = -math.inf
    elif pattern in ("exact", "full_exact"):
        # 1/2, 1/4, ... and the last once more
        listed = -math.log(2) * vector([*range(1, k), k - 1]).expand(tokens, k).clone()
    return {
        "student": student,
        "ids": ids,
        "log_probs": listed,
        "temperature": TEMPERATURES[seed % 4][0] if pattern == "temperatures" else 1.0,
        "upstream": upstream(draw, tokens),
    }


SPARSE = ("top", "temperatures", "offset", "confident", "k_1", "k_all_but_1", "forbids_unlisted")
KINDS = (
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("symmetric_kl", {"reverse": 0.5}),
    ("jensen_shannon", {"beta": 0.5}),
    ("skew_forward_kl", {"alpha": 0.1}),
    ("skew_reverse_kl", {"alpha": 0.1}),
    ("total_variation", {}),
    ("soft_cross_entropy", {}),
)
# without a term that is infinite where p is 0 and q is not
LENIENT = [kind for kind in KINDS if kind[0] not in ("reverse_kl", "symmetric_kl")]


def sparse_plan():
    """(mode, divergence, params, patterns)."""
    for name, params in KINDS:
        yield "remainder", name, params, (*SPARSE, "full_exact")
        yield "renormalised", name, params, ("full", "full_exact", "forbids_all_unlisted")
    for name, params in LENIENT:
        yield "remainder", name, params, ("exact", "zero_listed", "one_hot", "vocab_1")
        yield "renormalised", name, params, (*SPARSE, "one_hot", "zero_listed")
    for name, params in (
        ("jensen_shannon", {"beta": 0.0}),
        ("jensen_shannon", {"beta": 0.2}),
        ("symmetric_kl", {"reverse": 0.0}),
        ("skew_forward_kl", {"alpha": 0.5}),
    ):
        yield "remainder", name, params, ("top",)
        yield "renormalised", name, params, ("top", "exact")
    for name, params in KINDS[1:3]:
        yield "remainder", name, params, ("vocab_1",)
        yield "renormalised", name, params, ("vocab_1",)
    # the student has no mass in the remainder, the teacher does
    for name, params in (KINDS[1], KINDS[3], KINDS[5], KINDS[6]):
        yield "remainder", name, params, ("full", "forbids_all_unlisted")
    for name, params in (KINDS[3], KINDS[6]):
        yield "remainder", name, params, ("forbids_listed",)
        yield "renormalised", name, params, ("forbids_listed",)
    yield "remainder", "forward_kl", {}, ("full", "forbids_all_unlisted", "forbids_listed")
    yield "remainder", "reverse_kl", {}, ("one_hot", "zero_listed")
    yield "renormalised", "reverse_kl", {}, ("top",)
    yield "renormalised", "forward_kl", {}, ("forbids_listed",)


def sparse_cases():
    seed = 0
    for mode, divergence, params, patterns in sparse_plan():
        for pattern in patterns:
            yield mode, divergence, params, pattern, sparse(pattern, seed)
            seed += 1


# ---- TDPO and mixed log-probs -------------------------------------------------------------------


def tdpo_side(pattern, draw, tokens, vocab):
    policy, labels = logits(draw, tokens, vocab), draw.tokens(0, vocab, tokens).long()
    reference = (policy + 0.4 * logits(draw, tokens, vocab)).round(decimals=4)
    if pattern == "ignored":
        labels[0] = labels[-1] = -100
    elif pattern == "equal":
        reference = policy.clone()
    elif pattern == "offset":
        policy, reference = policy + 1e4, reference - 1e4
    elif pattern == "confident":
        raise_one(policy, 0, labels[0])
        raise_one(reference, 1, labels[1])
    elif pattern == "forbidden":
        mask = forbid(draw, tokens, vocab).scatter(1, labels[:, None], False)
        policy[mask] = reference[mask] = -math.inf
    return {"policy": policy, "reference": reference, "labels": labels}


def tdpo_cases():
    """(variant, beta, alpha, pattern, chosen, rejected)."""
    plan = [
        (variant, beta, alpha, pattern)
        for variant, beta, alpha in ((1, 0.1, None), (2, 0.1, 0.5))
        for pattern in ("plain", "ignored", "equal", "offset", "confident", "forbidden")
    ]
    plan += [(1, 2.0, None, "plain"), (2, 2.0, 0.5, "plain"), (2, 0.5, 1.0, "ignored")]
    plan += [
        (2, 0.1, 0.0, "plain"),
        (2, 0.1, 0.5, "empty_chosen"),
        (1, 0.1, None, "empty_rejected"),
    ]
    for seed, (variant, beta, alpha, pattern) in enumerate(plan):
        draw = Draw(7000 + seed)
        vocab = 5 + seed % 6
        sides = [tdpo_side(pattern, draw, 2 + (seed + s) % 4, vocab) for s in range(2)]
        for side, name in zip(sides, ("empty_chosen", "empty_rejected"), strict=True):
            if pattern == name:
                side["labels"][:] = -100
        yield variant, beta, alpha, pattern, *sides


def mixed_cases():
    """(coefficients, pattern, arrays)."""
    patterns = ("plain", "temperatures", "offset", "confident", "forbidden", "ignored")
    plan = [((1.0, -1.0), p) for p in (*patterns, "equal", "vocab_1")]
    for mu in (1.5, 0.5):
        plan += [((mu, 1 - mu), p) for p in patterns]
    plan += [((1.0, 0.0), "plain"), ((1.0, 0.0), "temperatures"), ((4 / 3, -1 / 3), "offset")]
    plan += [((1.0,), "temperatures"), ((0.5, 0.25, -0.75), "plain"), ((0.6, 0.4), "first_forbids")]
    plan += [((1.5, -0.5), "first_forbids"), ((1.5, -0.5), "label_forbidden")]
    for seed, (coefficients, pattern) in enumerate(plan):
        draw = Draw(8000 + seed)
        tokens, vocab = 3 + seed % 4, 1 if pattern == "vocab_1" else 5 + seed % 9
        tensors = [logits(draw, tokens, vocab) for _ in coefficients]
        labels = draw.tokens(0, vocab, tokens).long()
        label = torch.zeros(tokens, vocab, dtype=torch.bool).scatter(1, labels[:, None], True)
        if pattern == "offset":
            for i, z in enumerate(tensors):
                z += 1e4 * vector([1, -1, 0, -1, 1, 0])[:tokens, None].roll(i, 0)
        elif pattern == "confident":
            for t in range(tokens):
                raise_one(tensors[t % len(tensors)], t, (labels[t] + (t > 1)) % vocab)
        elif pattern == "forbidden":
            mask = forbid(draw, tokens, vocab) & ~label
            for z in tensors:
                z[mask] = -math.inf
        elif pattern == "first_forbids":
            tensors[0][forbid(draw, tokens, vocab) & ~label] = -math.inf
        elif pattern == "label_forbidden":
            tensors[0][0, labels[0]] = -math.inf
        elif pattern == "equal":
            tensors[1] = tensors[0].clone()
        elif pattern == "ignored":
            labels[1] = -100
        yield (
            coefficients,
            pattern,
            {
                "logits": tensors,
                "labels": labels,
                "temperature": TEMPERATURES[seed % 4][0] if pattern == "temperatures" else 1.0,
                "upstream": upstream(draw, tokens),
            },
        )
