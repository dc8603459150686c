"""What the classes of `prefuse.objectives` have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import ClassVar

from . import _core

REDUCTIONS = ("mean", "sum", "token_mean", "sequence_mean")


class Objective:
    """A loss of one kind of unit, with its parameters; raises `ValueError` where one lies outside its domain.

    Attributes:
        parameters: By name, as given.
        inputs: What it looks at beside the policy's log-probs, by the names of the arguments of
            `prefuse.torch.preference_loss`.
    """

    unit: ClassVar[str] = ""
    variants: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, **parameters: float | bool | str) -> None:
        # An underscore stands after those that are keywords of Python.
        self.parameters = {name.removesuffix("_"): of for name, of in parameters.items()}
        self.numbers = {name: self._number(name, value) for name, value in self.parameters.items()}
        numbers = list(self.numbers.items())
        self.inputs = tuple(_core.check_objective(self.name, self.is_ranking, numbers))

    def _number(self, name: str, value: float | bool | str) -> float:
        if name not in self.variants:
            return number(f"{name} of {self.name}", value)
        known = self.variants[name]
        if value not in known:
            expected = " or ".join(repr(of) for of in known)
            raise ValueError(f"{name} of {self.name}: expected {expected}, got {value!r}")
        return float(known.index(value))

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def is_ranking(self) -> bool:
        return self.unit == "Ranking"

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{self.name}({given})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.numbers == other.numbers

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.numbers.items())))


class Term:
    """An objective, its weight in the sum of a loss, and the units that it looks at.

    Args:
        objective: One of `prefuse.objectives`.
        weight: Factor of the term's value.
        reduction: `"mean"` over the units, `"sum"`, `"token_mean"` (over the units' counted tokens),
            `"sequence_mean"` (over sequences of means over their tokens; for objectives on tokens), or a number
            to divide the sum by; the call's own where it is `None`.
        sequences: For objectives on sequences or tokens: `"all"`, `"chosen"` (those of the pairs), or indices.
        pairs: For objectives on pairs: indices of the pairs to look at, all where it is `None`.
    """

    def __init__(
        self,
        objective: Objective,
        weight: float = 1.0,
        *,
        reduction: str | float | None = None,
        sequences: str | Sequence[int] = "all",
        pairs: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(objective, Objective):
            expected = "an instance of one of prefuse.objectives"
            raise TypeError(f"objective: expected {expected}, got {kind(objective)}")
        if isinstance(sequences, str) and sequences not in ("all", "chosen"):
            raise ValueError(f"sequences: expected 'all', 'chosen' or indices, got {sequences!r}")
        self.objective = objective
        # Factors, not their product: `torch.compile` makes a constant of a float that it computes.
        self.weights = [finite("weight of a term", weight)]
        self.reduction = None if reduction is None else checked_reduction(reduction)
        self.sequences = (
            sequences if isinstance(sequences, str) else indices("sequences", sequences)
        )
        self.pairs = None if pairs is None else indices("pairs", pairs)

    def times(self, weight: float) -> Term:
        """The same with another factor beside its own."""
        options = {"reduction": self.reduction, "sequences": self.sequences, "pairs": self.pairs}
        term = Term(self.objective, weight, **options)
        term.weights += self.weights
        return term

    def text(self, reduction: str | float) -> dict:
        """For `_core.Backend.loss`."""
        reduction = reduction if self.reduction is None else self.reduction
        if reduction == "sequence_mean" and self.objective.unit != "Token":
            expected = "'mean', 'sum', 'token_mean' or a divisor"
            got = "'sequence_mean', which is of objectives on tokens"
            raise ValueError(f"reduction of {self.objective.name}: expected {expected}, got {got}")
        return {
            "objective": self.objective.name,
            "is_ranking": self.objective.is_ranking,
            "parameters": self.objective.numbers,
            "weights": self.weights,
            "reduction": reduction,
            "sequences": self.sequences,
            "pairs": self.pairs,
        }


def checked_reduction(reduction: str | float) -> str | float:
    if isinstance(reduction, str):
        if reduction not in REDUCTIONS:
            expected = ", ".join(repr(of) for of in REDUCTIONS)
            raise ValueError(f"reduction: expected {expected} or a number, got {reduction!r}")
        return reduction
    return finite("reduction", reduction)


def indices(what: str, values: Sequence[int]) -> list[int]:
    if not hasattr(values, "__iter__"):
        raise TypeError(f"{what}: expected a list of integers, got {kind(values)}")
    found = [integer(what, of) for of in values]
    if any(of < 0 for of in found):
        raise ValueError(f"{what}: expected indices from 0 on, got {min(found)}")
    return found


def kind(value: object) -> str:
    """What was got in the place of something else."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def integer(what: str, value: int) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{what}: expected an integer, got {kind(value)}") from None


def number(what: str, value: float) -> float:
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        raise TypeError(f"{what}: expected a number, got {kind(value)}")
    return float(value)


def finite(what: str, value: float) -> float:
    found = number(what, value)
    # `math.isfinite` would make a constant of a number that `torch.compile` keeps variable.
    if not -math.inf < found < math.inf:
        raise ValueError(f"{what}: expected a finite number, got {found}")
    return found


def json(value: dict | list | tuple | str | float | None, floats: list[float]) -> str:
    """As `json.dumps`, which `torch.compile` does not trace, with `%r` for each float, which goes to `floats`: a
    graph whose text had them would be of these values alone. Texts are names, without what needs an escape.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{" + ",".join([f'"{name}":{json(of, floats)}' for name, of in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([json(of, floats) for of in value]) + "]"
    if isinstance(value, float):
        floats.append(value)
        return "%r"
    return repr(value)


def terms_of(objective: Objective | Term | Sequence) -> list[Term]:
    """An objective, a term, or a list of these and of `(weight, objective)`."""
    if isinstance(objective, Term):
        return [objective]
    if isinstance(objective, Objective):
        return [Term(objective)]
    if not isinstance(objective, Sequence) or isinstance(objective, str):
        got = kind(objective)
        raise TypeError(f"objective: expected an objective, a Term or a list of them, got {got}")
    terms = []
    for part in objective:
        of = part
        if isinstance(part, Sequence) and not isinstance(part, str):
            if len(part) != 2:
                raise ValueError(f"term: expected (weight, objective), got {len(part)} items")
            of = part[1]
        if not isinstance(of, (Objective, Term)):
            expected = "an objective, a Term or (weight, objective) in the list"
            raise TypeError(f"term: expected {expected}, got {kind(of)}")
        term = of if isinstance(of, Term) else Term(of)
        terms.append(term if of is part else term.times(part[0]))
    if not terms:
        raise ValueError("objective: expected at least 1 term, got 0")
    return terms
