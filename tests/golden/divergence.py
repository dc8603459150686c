"""Golden vectors of the divergences between a student and its teachers from a second source.

torch autograd in f64 written from the papers and the published trainers, without the Rust.

Run: `python tests/golden/divergence.py [--check]` (torch on the CPU).
It writes four files beside itself, or with --check exits with 1 if one of them differs:
divergence_f64.json, sparse_teacher_f64.json, tdpo_f64.json and mixed_log_probs_f64.json.
Every gradient is compared with central finite differences on the way.
"""

import math
import sys
from collections import Counter

import torch
from divergence_cases import dense_cases, mixed_cases, sparse_cases, tdpo_cases
from divergence_losses import DIVERGENCES, distil, mixed_log_probs, sparse_bins, tdpo
from golden_file import document, write_or_check
from independent import encode, nonfinite
from objectives_inputs import F64
from oracle import Stop, gradient

DIVERGENCE_NOTES = [
    (
        "p = softmax(teacher / T_teacher), q = softmax(student / T_student); temperatures = "
        "[T_student, T_teacher]; no T^2 factor, no reduction: one value per token"
    ),
    (
        "forward_kl KL(p||q), reverse_kl KL(q||p), symmetric_kl (1 - reverse) KL(p||q) + reverse "
        "KL(q||p); jensen_shannon of GKD: m = beta p + (1 - beta) q, beta KL(p||m) + (1 - beta) "
        "KL(q||m), beta 0: KL(p||q), beta 1: KL(q||p); skew_forward_kl KL(p || alpha p + (1 - alpha) "
        "q), skew_reverse_kl KL(q || (1 - alpha) p + alpha q); total_variation sum|p - q| / 2, "
        "gradient 0 at ties; soft_cross_entropy -sum p log q"
    ),
    (
        "expected_advantage: -sum_v q(v) A(v), A = clamp(beta sum_i c_i log softmax(z_i / "
        "T_teacher), low, high), null = no clamp; A is fixed; teacher_entropy is null"
    ),
    (
        "teacher_rule combination: teacher logits sum_i c_i z_i; align_distil: z_d, z_r in this order "
        "(coefficients null), D = sum|softmax(z_d) - softmax(z_r)| at temperature 1, halved unless "
        "doubled, alpha = ratio D + 1e-3, teacher logits z_d + alpha (z_d - z_r), value * beta / alpha; "
        "entropies carry no such weight; all of the teacher is fixed"
    ),
    (
        "a term of weight 0 is left out (symmetric_kl 0 and 1, skews of alpha 0 and 1), also where it "
        "would be infinite"
    ),
    (
        "0 log 0 = 0; a column that is -Infinity in every teacher is -Infinity in the combination "
        "whatever the signs (a reading: the raw sum is NaN), and where q is 0 no advantage counts; "
        "gradient exactly 0 at -Infinity of the student"
    ),
    (
        "teachers wider than the student are cut to its columns before any softmax; narrower ones "
        "restrict the student's softmax (and student_entropy) to their columns, its gradient beyond "
        "is exactly 0"
    ),
    "grads: gradient of sum_t upstream_t values_t by the student; null where a value is infinite",
    (
        "tolerance: rtol 1e-9 with atol 1e-12; offset: 1e4 of whole rows, values are exact for the "
        "logits given, those who divide by T before they subtract the maximum need atol 1e-10; equal: "
        "the rows but the last are the student's (align_distil: alpha = 1e-3 there, value * 1e3 beta)"
    ),
]

SPARSE_NOTES = [
    "ids, log_probs: [tokens, k], distinct ids in no order; temperature divides the student only",
    (
        "renormalised: p = listed / their sum, 0 elsewhere, q = the student's softmax; remainder: k + 1 "
        "bins, the last with p = 1 - sum of listed and q = 1 - sum of the student's at the ids, here "
        "summed over the other ids; divergences as in divergence_f64.json, of the bins"
    ),
    (
        "k = vocab in mode remainder: the student's last bin is exactly 0; exact, full_exact: listed "
        "1/2, 1/4, ... sum to 1 but for rounding, the teacher's remainder counts as 0; in no other "
        "case is it below 1e-4"
    ),
    (
        "confident: the student gives one listed id (rows 0, 2, ..) or one other id (1, 3, ..) nearly "
        "all; 1 - sum loses the student's remainder of 1e-13 there, the sum over the other ids does "
        "not"
    ),
    "grads: by the student's full logits; null where a value is infinite",
    "tolerance: rtol 1e-9 with atol 1e-12",
]

TDPO_NOTES = [
    (
        "one pair per case; labels: -100 is not scored; sequence_kls, log_probs, ref_log_probs, rewards "
        "= [chosen, rejected]; K = sum of KL(reference || policy) over scored positions"
    ),
    (
        "h = (log_probs - ref_log_probs) of chosen less rejected; variant 1: -log sigmoid(beta (h - "
        "(K_l - K_w))), alpha null; variant 2: -log sigmoid(beta (h - alpha (K_l - K_w))) with K_w "
        "fixed; rewards beta (log-ratio + K), no gradient"
    ),
    "grad_chosen, grad_rejected: gradient of the loss by the policy's logits",
    "tolerance: rtol 1e-9 with atol 1e-12",
]

MIXED_NOTES = [
    (
        "log_probs = log softmax(sum_i c_i z_i / temperature)[label], 0 with gradient 0 at label -100; "
        "grads: of sum_t upstream_t log_probs_t by each z_i"
    ),
    (
        "NextQuill: 1, -1; SPA: mu, 1 - mu (its use takes no gradient); a column that is -Infinity in "
        "every z_i stays so"
    ),
    (
        "label_forbidden: token 0 has a label of probability 0: log-prob -Infinity, its gradient the "
        "finite limit, c_i (one-hot - softmax) / temperature"
    ),
    "tolerance: rtol 1e-9 with atol 1e-12",
]


def check_total_variation(p, q):
    """That no sign of p - q hangs on rounding; whether differences would step over a tie."""
    a, b = p.exp(), q.exp()
    gap, top = (a - b).abs(), torch.maximum(a, b)
    assert ((gap == 0) | (gap > 2.0**-48 * top)).all()
    return bool((gap < 5e-3 * top)[top > 0].any())


def by_student(label, values_of, student, upstream, kinked):
    """The values of each token and the gradient of their weighted sum, None if not finite."""
    with torch.no_grad():
        values = values_of(student)
    assert not (torch.isnan(values) | (values == -math.inf)).any(), (label, values)
    if not torch.isfinite(values).all():
        return values, None

    def losses_of(moved):
        return upstream * values_of(moved["student"])

    grad = gradient(losses_of, {"student": student}, "student", Stop(), label, kinked)
    assert (grad[student == -math.inf] == 0).all(), label
    assert (grad[upstream == 0] == 0).all(), label
    assert (grad.sum(1).abs() < 1e-12 * (1 + upstream.abs() * (1 + values.abs()))).all(), label
    return values, grad


def expected_of_dense(label, divergence, params, rule, coefficients, arrays):
    student, temperatures = arrays["student"], arrays["temperatures"]
    teachers = list(zip(coefficients, arrays["teachers"], strict=True))

    def run(logits):
        return distil(divergence, params, rule, logits, teachers, temperatures)

    _, student_entropy, teacher_entropy, (p, q) = run(student)
    kinked = divergence == "total_variation" and check_total_variation(p, q)
    values, grads = by_student(label, lambda x: run(x)[0], student, arrays["upstream"], kinked)
    if grads is not None:
        assert (grads[:, q.shape[1] :] == 0).all(), label
    return {
        "values": values,
        "student_entropy": student_entropy,
        "teacher_entropy": teacher_entropy,
        "grads": grads,
    }


def expected_of_sparse(label, mode, divergence, params, arrays):
    ids, listed = arrays["ids"], arrays["log_probs"]

    def bins(logits):
        return sparse_bins(mode, logits, ids, listed, arrays["temperature"])

    student = arrays["student"]
    kinked = divergence == "total_variation" and check_total_variation(*bins(student))
    values, grads = by_student(
        label,
        lambda x: DIVERGENCES[divergence](*bins(x), **params),
        student,
        arrays["upstream"],
        kinked,
    )
    return {"values": values, "grads": grads}


def expected_of_tdpo(label, variant, beta, alpha, sides):
    stop = Stop()
    references = [side["reference"] for side in sides]
    labels = [side["labels"] for side in sides]

    def run(moved):
        policies = moved["chosen"], moved["rejected"]
        return tdpo(policies, references, labels, beta, alpha, variant, stop)

    arrays = {
        name: side["policy"] for name, side in zip(("chosen", "rejected"), sides, strict=True)
    }
    with torch.no_grad():
        out = run(arrays)
    stop.replay()
    for name in arrays:
        grad = gradient(lambda moved: run(moved)["loss"], arrays, name, stop, label)
        assert (grad[arrays[name] == -math.inf] == 0).all(), label
        out[f"grad_{name}"] = grad
    return out


def expected_of_mixed(label, coefficients, arrays):
    tensors = arrays["logits"]
    names = [str(i) for i in range(len(tensors))]
    rest = arrays["labels"], arrays["temperature"]
    with torch.no_grad():
        values = mixed_log_probs(coefficients, tensors, *rest)

    def losses_of(moved):
        mixed = mixed_log_probs(coefficients, [moved[name] for name in names], *rest)
        return arrays["upstream"] * mixed

    kinked = not torch.isfinite(values).all()
    given = dict(zip(names, tensors, strict=True))
    grads = [gradient(losses_of, given, name, Stop(), label, kinked) for name in names]
    return {"log_probs": values, "grads": grads}


class File:
    """The cases of a file, as they are computed."""

    def __init__(self, name, description, notes):
        self.name, self.description, self.notes = name, description, notes
        self.cases, self.counts = [], Counter()

    def add(self, kind, pattern, head, expected_of):
        label = f"{kind}/{self.counts[kind]}/{pattern}"
        self.counts[kind] += 1
        expected = expected_of(label)
        case = {"id": label} | encode(head) | {"expected": encode(expected)}
        self.cases.append(case | {"nonfinite": nonfinite(expected, "expected")})

    def write(self, arguments):
        header = {
            "schema": "prefloss-golden/1",
            "file": self.name,
            "description": self.description,
            "functions": ["torch.log_softmax", "torch.logaddexp", "torch.autograd.grad"],
            "provenance": "torch f64 composed by this project from the papers and the published code",
            "packages": {"torch": torch.__version__.split("+")[0]},
            "encoding": "tensor={shape,dtype,data row-major}; non-finite floats are the strings "
            "NaN/Infinity/-Infinity, those expected are listed in case.nonfinite; logits and "
            "log_probs given hold -Infinity too",
            "notes": self.notes,
        }
        write_or_check(self.name, document(header, cases=self.cases), arguments)
        print(f"{self.name}: {len(self.cases)} cases")
        print(", ".join(f"{key} {count}" for key, count in self.counts.items()))


def dense_file():
    found = File(
        "divergence_f64.json",
        "divergences of a student from dense teachers: logits -> value of each token, entropies and "
        "the gradient to the student's logits",
        DIVERGENCE_NOTES,
    )
    for divergence, params, rule, coefficients, pattern, arrays in dense_cases():
        teachers = zip(coefficients, arrays["teachers"], strict=True)
        head = {
            "divergence": {"name": divergence} | params,
            "teacher_rule": rule,
            "student": arrays["student"],
            "teacher": [{"coefficient": c, "logits": z} for c, z in teachers],
            "temperatures": list(arrays["temperatures"]),
            "upstream": arrays["upstream"],
        }
        case = divergence, params, rule, coefficients, arrays
        found.add(
            divergence, pattern, head, lambda label, case=case: expected_of_dense(label, *case)
        )
    return found


def sparse_file():
    found = File(
        "sparse_teacher_f64.json",
        "divergences of a student from a teacher known at k ids: logits, ids, log-probs -> value of "
        "each token and the gradient to the student's logits",
        SPARSE_NOTES,
    )
    for mode, divergence, params, pattern, arrays in sparse_cases():
        head = {"divergence": {"name": divergence} | params, "mode": mode} | arrays
        case = mode, divergence, params, arrays
        kind = f"{mode}/{divergence}"
        found.add(kind, pattern, head, lambda label, case=case: expected_of_sparse(label, *case))
    return found


def tdpo_file():
    found = File(
        "tdpo_f64.json",
        "TDPO of pairs: logits of policy and reference -> loss, rewards, sequence KLs and the gradient "
        "to the policy's logits",
        TDPO_NOTES,
    )
    for variant, beta, alpha, pattern, *sides in tdpo_cases():
        head = {"variant": variant, "beta": beta, "alpha": alpha}
        head |= dict(zip(("chosen", "rejected"), sides, strict=True))
        case = variant, beta, alpha, sides
        kind = f"tdpo{variant}"
        found.add(kind, pattern, head, lambda label, case=case: expected_of_tdpo(label, *case))
    return found


def mixed_file():
    found = File(
        "mixed_log_probs_f64.json",
        "log-probs of labels under a combination of logits, with the gradient to each of them",
        MIXED_NOTES,
    )
    for coefficients, pattern, arrays in mixed_cases():
        head = {"coefficients": list(coefficients)} | arrays
        case = coefficients, arrays
        found.add("mixed", pattern, head, lambda label, case=case: expected_of_mixed(label, *case))
    return found


def main(arguments):
    """Computes every case of the four files."""
    torch.set_num_threads(1)
    torch.set_default_dtype(F64)
    for make in (dense_file, sparse_file, tdpo_file, mixed_file):
        make().write(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
