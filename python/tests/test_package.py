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
    with pytest.raises(TypeError, match="expected one of prefuse.objectives, got float"):
        prefuse.Term(0.1)


def test_inputs_are_named():
    assert prefuse.Dpo(0.1).inputs == ("reference", "pair_beta", "margin", "pair_soft_labels")
    assert prefuse.Kto(0.1).inputs == ("reference", "soft_labels")
    assert prefuse.EntropyBonus().inputs == ("entropy",)


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
