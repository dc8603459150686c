"""What several tests share."""

import json
import math
import pathlib
import re

import pytest
import torch

GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Half an ulp of 1.
EPSILON = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number(value) -> float:
    return NAMED[value] if isinstance(value, str) else float(value)


def tensor(value) -> torch.Tensor:
    """A tensor of a golden file."""
    integral = value["dtype"] == "int64"
    data = [int(of) if integral else number(of) for of in value["data"]]
    return torch.tensor(data, dtype=getattr(torch, value["dtype"])).view(value["shape"])


def golden(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def log_probs_of(logits, labels, temperature=1.0, ignore_index=-100):
    """As torch composes them, in the logits' own type or in f64."""
    rows = torch.log_softmax(logits / temperature, -1)
    at = labels.masked_fill(labels == ignore_index, 0)
    found = rows.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    return torch.where(labels == ignore_index, 0.0, found)


def no_worse(ours, theirs, truth, slack):
    """Our error is no more than torch's in the same type, or than a rounding of what is compared."""
    error = (ours.double() - truth).abs().max()
    others = (theirs.double() - truth).abs().max()
    assert error <= others + slack, f"error {error}, torch's {others}"


def check_refused(cases):
    """Each call raises its kind of error with its message."""
    for message, kind, call in cases:
        try:
            call()
        except kind as error:
            assert re.search(message, str(error)), f"{message} is not in: {error}"
        else:
            pytest.fail(f"nothing was raised: {message}")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(20)
