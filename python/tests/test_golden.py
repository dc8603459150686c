"""The golden files of the core once more, through Python: other people's packages, and a script in torch."""

import math

import prefuse
import pytest
import torch
from conftest import golden, tensor
from prefuse import divergences
from prefuse.torch import (
    AlignDistil,
    Combination,
    SparseTeacher,
    objective_loss,
    preference_loss,
    reward_loss,
    token_divergences,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
# The scripts name some parameters by their sources' words.
WORDS = {
    "tau": "temperature",
    "form": "distance",
    "probability_form": "of_probabilities",
    "detach_policy": "detach_pair",
    "detach_judge": "detach_verdicts",
    "lambda": "lambda_",
}


def objective_of(case: dict) -> prefuse.Objective:
    kind = getattr(prefuse, case["objective"])
    words = dict(WORDS)
    if "temperature" not in kind.__init__.__annotations__:
        del words["tau"]
    given = {words.get(name, name): value for name, value in case["params"].items()}
    return kind(**given)


def both(given: dict, what: str) -> torch.Tensor | None:
    """Chosen, then rejected."""
    sides = [given.get(f"{side}_{what}", given.get(what)) for side in ("chosen", "rejected")]
    return None if sides[0] is None else torch.cat([tensor(of) for of in sides])


FILE = golden("objectives_f64")
PAIRS = [of for of in FILE["cases"] if of["unit"] == "pair"]
SEQUENCES = [of for of in FILE["cases"] if of["unit"] == "sequence"]


def test_cases_of_every_kind_are_here():
    assert len(PAIRS) > 200 and len(SEQUENCES) > 40


@pytest.mark.parametrize("case", PAIRS, ids=lambda of: of["id"])
def test_objectives_over_pairs(case):
    objective, given = objective_of(case), FILE["inputs"][case["input"]]
    policy = both(given, "policy").requires_grad_()
    options = {}
    if "margin" in objective.inputs:
        options["margin"] = (
            tensor(given["margin"]) if "margin" in given else [0.0] * (len(policy) // 2)
        )
    if "beta" in given and "pair_beta" in objective.inputs:
        options["pair_beta"] = tensor(given["beta"])
    if "soft_label" in given and "pair_soft_labels" in objective.inputs:
        options["pair_soft_labels"] = tensor(given["soft_label"])
    if "scores" in objective.inputs:
        options["scores"] = both(given, "score")
    reference = both(given, "reference") if "reference" in objective.inputs else None
    tokens = both(given, "tokens")
    found = objective_loss(objective, policy, reference, tokens=tokens, reduction="sum", **options)
    expected = case["expected"]
    torch.testing.assert_close(found.losses, tensor(expected["losses"]), **CLOSE)
    torch.testing.assert_close(found.loss, found.losses.sum(), **CLOSE)
    rewards = torch.stack(
        [tensor(expected["reward_chosen"]), tensor(expected["reward_rejected"])], 1
    )
    torch.testing.assert_close(found.rewards, rewards, **CLOSE)
    (2.0 * found.loss).backward()
    grads = torch.cat([tensor(expected["grad_chosen"]), tensor(expected["grad_rejected"])])
    torch.testing.assert_close(policy.grad, 2.0 * grads, **CLOSE)


@pytest.mark.parametrize("case", SEQUENCES, ids=lambda of: of["id"])
def test_objectives_over_sequences(case):
    objective, given = objective_of(case), FILE["inputs"][case["input"]]
    of = {name: tensor(value) for name, value in given.items()}
    policy = of["policy"].requires_grad_()
    names = {"scores": "score", "soft_labels": "soft_label"}
    options = {
        name: of[word] for name, word in names.items() if name in objective.inputs and word in of
    }
    reference = of.get("reference") if "reference" in objective.inputs else None
    tokens = of.get("tokens")
    found = objective_loss(objective, policy, reference, tokens=tokens, reduction="sum", **options)
    torch.testing.assert_close(found.losses, tensor(case["expected"]["losses"]), **CLOSE)
    found.loss.backward()
    torch.testing.assert_close(policy.grad, tensor(case["expected"]["grad_response"]), **CLOSE)


TRL = {
    "sigmoid": prefuse.Dpo,
    "hinge": prefuse.Hinge,
    "ipo": lambda beta: prefuse.Ipo(beta, length_normalized=True),
    "sigmoid_norm": lambda beta: prefuse.Dpo(beta, length_normalized=True),
    "robust_ls0.1": lambda beta: prefuse.Robust(beta, label_smoothing=0.1),
    "exo_ls0.01": lambda beta: prefuse.ExoPair(beta, label_smoothing=0.01),
    "nca_pair": prefuse.NcaPair,
    "bco_pair": prefuse.BcoPair,
    "sppo_hard": prefuse.SppoHard,
    "apo_zero": prefuse.ApoZero,
    "apo_down": prefuse.ApoDown,
    "forward_kl": lambda beta: prefuse.Dpo(beta, divergence="ForwardKl"),
    "js": lambda beta: prefuse.Dpo(beta, divergence="JensenShannon"),
    "sft": lambda beta: prefuse.Term(prefuse.Nll(), sequences="chosen", reduction="token_mean"),
}


@pytest.mark.parametrize("name", TRL)
def test_trl_end_to_end(name):
    file = golden("dpo_e2e_trl1.16_f64")
    (case,) = [of for of in file["cases"] if of["id"] == name]
    given = {of: tensor(value) for of, value in file["inputs"][case["input"]].items()}
    logits = (given["hidden"] @ given["lm_head_weight"].T).requires_grad_()
    labels = given["input_ids"].masked_fill(given["completion_mask"] == 0, -100)
    expected = case["expected"]
    options = {"pairs": "halves"}
    if name != "sft":
        options["reference"] = tensor(expected["ref_logps"])
    found = preference_loss(
        TRL[name](case["params"].get("beta")), logits[:, :-1], labels[:, 1:], **options
    )
    # TRL keeps EXO's label smoothing in f32.
    relative = 1e-7 if name.startswith("exo") else 1e-9
    assert found.loss.item() == pytest.approx(expected["loss"], rel=relative)
    torch.testing.assert_close(found.log_probs, tensor(expected["token_logps"]), **CLOSE)
    (grads,) = torch.autograd.grad(found.loss, logits)
    of_rows = tensor(expected["grad_logits"])
    torch.testing.assert_close(
        grads[:, : of_rows.shape[1]], of_rows, rtol=10 * relative, atol=1e-11
    )
    if name in ("sigmoid", "hinge"):
        for metric in ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen"):
            assert found.metrics[metric] == pytest.approx(expected["metrics"][metric], rel=1e-6)


def test_reward_models():
    file = golden("reward_bt_trl1.16_f64")
    cases = [of for of in file["cases"] if not of["params"]["center_rewards_coefficient"]]
    assert len(cases) >= 8
    for case in cases:
        given = {name: tensor(value) for name, value in file["inputs"][case["input"]].items()}
        rewards = torch.cat([given["rewards_chosen"], given["rewards_rejected"]]).requires_grad_()
        options = {"margin": given["margin"]} if case["params"]["use_margin"] else {}
        found = reward_loss(prefuse.BradleyTerry(), rewards, **options)
        expected = case["expected"]
        assert found.loss.item() == pytest.approx(expected["loss"], rel=1e-9)
        found.loss.backward()
        names = ("grad_rewards_chosen", "grad_rewards_rejected")
        grads = torch.cat([tensor(expected[name]) for name in names])
        torch.testing.assert_close(rewards.grad, grads, **CLOSE)


DIVERGENCES = {
    "forward_kl": lambda of: divergences.ForwardKl(),
    "reverse_kl": lambda of: divergences.ReverseKl(),
    "symmetric_kl": lambda of: divergences.SymmetricKl(of["reverse"]),
    "jensen_shannon": lambda of: divergences.JensenShannon(of["beta"]),
    "skew_forward_kl": lambda of: divergences.SkewForwardKl(of["alpha"]),
    "skew_reverse_kl": lambda of: divergences.SkewReverseKl(of["alpha"]),
    "total_variation": lambda of: divergences.TotalVariation(),
    "soft_cross_entropy": lambda of: divergences.SoftCrossEntropy(),
    "expected_advantage": lambda of: divergences.ExpectedAdvantage(
        of["beta"],
        -math.inf if of["low"] is None else of["low"],
        math.inf if of["high"] is None else of["high"],
    ),
}


def dense_teacher(case: dict):
    parts = [(of["coefficient"], tensor(of["logits"])) for of in case["teacher"]]
    rule = case["teacher_rule"]
    if rule["name"] == "single":
        return parts[0][1] if parts[0][0] == 1.0 else Combination(parts)
    if rule["name"] == "combination":
        return Combination(parts)
    dpo, reverse = (logits for _, logits in parts)
    return AlignDistil(dpo, reverse, rule["beta"], rule["ratio"], rule["doubled"])


def check_divergence(case, student, values):
    expected = case["expected"]
    close = {"rtol": 1e-9, "atol": 1e-12, "msg": case["id"]}
    torch.testing.assert_close(values, tensor(expected["values"]), **close)
    (grads,) = torch.autograd.grad(values, student, tensor(case["upstream"]))
    if expected["grads"] is not None:
        torch.testing.assert_close(grads, tensor(expected["grads"]), **close)


def test_divergences_from_dense_teachers():
    tried = set()
    for case in golden("divergence_f64")["cases"]:
        name = case["divergence"]["name"]
        student = tensor(case["student"]).requires_grad_()
        of_student, of_teacher = case["temperatures"]
        values = token_divergences(
            DIVERGENCES[name](case["divergence"]),
            student,
            dense_teacher(case),
            temperature=of_student,
            teacher_temperature=of_teacher,
        )
        check_divergence(case, student, values)
        tried.add(name)
    assert tried == set(DIVERGENCES)


def test_divergences_from_sparse_teachers():
    modes = {"remainder": "bin", "renormalised": "renormalised"}
    tried = set()
    for case in golden("sparse_teacher_f64")["cases"]:
        name = case["divergence"]["name"]
        if name not in DIVERGENCES:
            continue
        lists_all = case["ids"]["shape"][1] == case["student"]["shape"][1]
        if case["mode"] == "remainder" and lists_all and not case["id"].endswith("full_exact"):
            # The script has a bin even where nothing is left for it.
            continue
        student = tensor(case["student"]).requires_grad_()
        teacher = SparseTeacher(tensor(case["ids"]), tensor(case["log_probs"]), modes[case["mode"]])
        divergence = DIVERGENCES[name](case["divergence"])
        values = token_divergences(divergence, student, teacher, temperature=case["temperature"])
        check_divergence(case, student, values)
        tried.add((name, case["mode"]))
    assert len(tried) >= 10


RANKINGS = {
    "PlackettLuce": lambda of: prefuse.PlackettLuce(of["beta"]),
    "InfoNca": lambda of: prefuse.InfoNca(of["beta"], of["alpha"]),
    "NcaList": lambda of: prefuse.Nca(of["beta"], of["alpha"]),
    "LipoLambda": lambda of: {"paper": prefuse.LipoLambda, "rax": prefuse.LipoLambdaRax}[
        of["form"]
    ](of["beta"]),
}


@pytest.mark.parametrize("name", RANKINGS)
def test_rankings(name):
    file = golden("groups_f64")
    cases = [of for of in file["cases"] if of["objective"] == name]
    # Groups of one response are refused, and Plackett and Luce's takes the best one first.
    others = {"groups/edge", "groups/shuffled" if name == "PlackettLuce" else ""}
    cases = [of for of in cases if of["input"] not in others]
    assert len(cases) >= 6
    for case in cases:
        given = {key: tensor(value) for key, value in file["inputs"][case["input"]].items()}
        ranking = RANKINGS[name](case["params"])
        policy = given["policy"].requires_grad_()
        options = {"scores": given["scores"]} if "scores" in ranking.inputs else {}
        reference = given["reference"] if "reference" in ranking.inputs else None
        groups = (given["cu"][1:] - given["cu"][:-1]).tolist()
        found = objective_loss(
            ranking,
            policy,
            reference,
            tokens=given["tokens"],
            groups=groups,
            reduction="sum",
            **options,
        )
        close = {"rtol": 1e-9, "atol": 1e-9, "msg": case["id"]}
        torch.testing.assert_close(found.losses, tensor(case["expected"]["losses"]), **close)
        found.loss.backward()
        expected = tensor(case["expected"]["grad_policy"])
        torch.testing.assert_close(policy.grad, expected, **close)
