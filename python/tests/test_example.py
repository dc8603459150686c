"""The example, as a user runs it."""

import pathlib
import sys

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import train_dpo  # noqa: E402


def losses(tmp_path, *arguments):
    options = ["--steps", "4", "--batch", "2", "--output", str(tmp_path)]
    logs = train_dpo.main([*options, *arguments])
    return [log["loss"] for log in logs if "loss" in log]


def test_it_learns_packed_as_padded(tmp_path):
    padded = losses(tmp_path)
    assert len(padded) >= 4 and padded[-1] < padded[0]
    assert losses(tmp_path, "--packed") == pytest.approx(padded, rel=1e-3)
    masked = losses(tmp_path, "--mask")
    assert masked[-1] < masked[0] and masked != padded
    assert losses(tmp_path, "--mask", "--packed") == pytest.approx(masked, rel=1e-3)
