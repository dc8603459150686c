"""The package without its functions on tensors."""

import importlib.util
import pathlib
import subprocess
import sys

import prefuse
import pytest
import torch
from prefuse import _core

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import prefuse
prefuse.Dpo(beta=0.1)
assert prefuse.statistics.accuracy([1.0, -1.0]) == 0.5
try:
    prefuse.torch
except ImportError as error:
    assert "pip install 'prefuse[torch]'" in str(error), error
else:
    raise SystemExit("prefuse.torch was imported")
"""


def test_imports_without_torch():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


def test_the_classes_are_those_of_the_list():
    path = pathlib.Path(__file__).parents[1] / "generate_objectives.py"
    spec = importlib.util.spec_from_file_location("generate_objectives", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = pathlib.Path(prefuse.objectives.__file__).read_text()
    # ruff joins what fits on a line.
    assert "".join(written.split()) == "".join(module.text().split()), (
        "stale: python generate_objectives.py"
    )


def test_every_class_takes_its_parameters():
    for name, unit, _, parameters in _core.objectives():
        kind = getattr(prefuse, name)
        assert kind.unit == unit
        required = {of: 0.25 for of, _, _, default, _ in parameters if default is None}
        names = {of if of != "lambda" else "lambda_": value for of, value in required.items()}
        made = kind(**names)
        assert set(made.numbers) == {of for of, *_ in parameters}
        assert made == kind(**names) and made.name in repr(made)


def test_parameters_outside_their_domain():
    for call, message in [
        (
            lambda: prefuse.Dpo(beta=-1.0),
            "Dpo: beta: expected a number from 1e-30 to 1e30, got -1.0",
        ),
        (lambda: prefuse.Dpo(beta=float("nan")), "beta: expected"),
        (
            lambda: prefuse.Dpo(beta=0.1, divergence="Hellinger"),
            "divergence of Dpo: expected 'ReverseKl' or",
        ),
        (
            lambda: prefuse.Term(prefuse.Dpo(0.1), float("inf")),
            "weight of a term: expected a finite",
        ),
        (lambda: prefuse.Term(prefuse.Dpo(0.1), reduction="max"), "reduction: expected 'mean'"),
        (lambda: prefuse.Term(prefuse.Nll(), sequences="some"), "sequences: expected 'all'"),
    ]:
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            call()
    with pytest.raises(
        TypeError, match="expected an instance of one of prefuse.objectives, got float"
    ):
        prefuse.Term(0.1)


def test_inputs_are_named():
    assert prefuse.Dpo(0.1).inputs == ("reference", "pair_beta", "margin", "pair_soft_labels")
    assert prefuse.Kto(0.1).inputs == ("reference", "soft_labels")
    assert prefuse.EntropyBonus().inputs == ("entropy",)


def test_a_name_that_is_none_can_be_corrected():
    with pytest.raises(AttributeError, match="no attribute 'DPO'") as caught:
        prefuse.DPO
    # Python's "Did you mean" looks there.
    assert (caught.value.name, caught.value.obj) == ("DPO", prefuse)


def test_statistics():
    statistics = prefuse.statistics
    assert statistics.kendall_tau([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(1 / 3)
    found = statistics.group_advantages(
        [1.0, 0.0, 2.0], [0, 0, 0], baseline="leave_one_out", spread="one"
    )
    assert found == [0.0, -1.5, 1.5]
    weights = statistics.mask_dpo_weights([0, 2, 4], [(0, 1)], [(0, 0, 1, True), (1, 0, 1, True)])
    assert weights == [1.0, 1.0, 0.0, 1.0]
    assert statistics.shift_labels([7, 8, 9, 4, 5], [0, 3, 5]) == [8, 9, -100, 5, -100]
    with pytest.raises(
        ValueError, match='baseline: expected "mean" or "leave_one_out", got "median"'
    ):
        statistics.group_advantages([1.0], [0], baseline="median")
    with pytest.raises(ValueError, match="expected length 3, got 2"):
        statistics.kendall_tau([1.0, 2.0, 3.0], [1.0, 2.0])


def test_cuda_works_or_says_why_not():
    assert prefuse.CUDA_BUILT_FOR is None or "compute_" in prefuse.CUDA_BUILT_FOR
    try:
        _core.Backend.cuda(0, 0).check()
    except prefuse.CudaUnavailable as error:
        assert not torch.cuda.is_available() and "CUDA" in str(error)


def test_statistics_of_pairs_sequences_and_tokens():
    statistics = prefuse.statistics
    pairs = [(0, 2), (1, 3)]
    matched = statistics.aot_unpaired(pairs, [3.0, 1.0, 0.0, 2.0], [0.0] * 4)
    assert matched == [(1, 2), (0, 3)]
    assert statistics.best_and_worst([1.0, 3.0, 2.0]) == (1, 0)
    assert statistics.ranks([5.0, 2.0, 2.0, 1.0], ties="average") == [1.0, 2.5, 2.5, 4.0]
    assert statistics.keep_largest([0.5, 3.0, 1.0], 0.67) == [1, 2]
    assert statistics.easy_pairs([0.5, -3.0], 1.0) == [1]
    assert statistics.win_rates([0.0, 0.0]) == [0.5, 0.5]
    assert statistics.kto_baseline(statistics.kto_log_ratios([-9.0], [-10.0], [5.0])) == 1.0
    tokens = {"labels": [1, 2, -100, 3], "cu_seqlens": [0, 2, 4]}
    assert statistics.ld_dpo_weights(0.5, [(0, 1)], **tokens) == [1.0, 0.5, 0.0, 1.0]
    assert statistics.probability_sums([0.0] * 4, **tokens) == [2.0, 1.0]
    assert statistics.wpo_weights([-1.0] * 4, [-1.0] * 4, **tokens) == [1.0, 1.0]
    assert statistics.wpo_pair_weights([(0, 1)], [2.0, 3.0], clamp_at_one=True) == [1.0]
    masked = statistics.mask_low_entropy([1.0, 2.0], [0.1, 0.9, 0.0, 0.5], 0.4, **tokens)
    # The token that does not count keeps what its sequence has.
    assert masked == [0.0, 1.0, 2.0, 0.0]
    sums = [-1.0, -2.0]
    found, margin, weights = statistics.p3o_pairs([(0, 1)], sums, sums, sums, [0.0, 1.0])
    assert found == [(1, 0)] and margin == [0.0] and weights[0] > 0.0


def test_statistics_that_remember():
    statistics = prefuse.statistics
    moments = statistics.Moments()
    moments.extend([1.0, 3.0])
    moments.merge(statistics.Moments(2, 5.0, 2.0))
    assert (moments.count, moments.mean) == (4, 3.5)
    reliability = statistics.Reliability(2)
    reliability.update([0], [0.5])
    assert reliability.values == pytest.approx([0.86, 0.9])
    threshold = statistics.ConfidenceThreshold(window=2, quantile=0.0)
    threshold.push(1.0)
    threshold.push(3.0)
    assert threshold.value == 2.0 and threshold.soft_labels([3.0, 1.0], 0.1) == [1.0, 0.9]
