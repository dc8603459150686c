"""How far a student's distribution q is from a teacher's p, for `prefuse.torch.distillation_loss`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ._objective import finite


@dataclass(frozen=True)
class Divergence:
    """One of the classes below."""

    def text(self) -> str | dict:
        """For `_core.Backend.divergence`."""
        name = type(self).__name__
        names = [of.name for of in fields(self)]
        parameters = {of: finite(f"{of} of {name}", getattr(self, of)) for of in names}
        return {name: parameters} if parameters else name


@dataclass(frozen=True)
class ForwardKl(Divergence):
    """`KL(p || q)` (Hinton et al., 2015)."""


@dataclass(frozen=True)
class ReverseKl(Divergence):
    """`KL(q || p)` (MiniLLM; Gu et al., 2024)."""


@dataclass(frozen=True)
class SymmetricKl(Divergence):
    """`(1 - reverse) KL(p || q) + reverse KL(q || p)`.

    Args:
        reverse: Share of the reverse KL, 0 to 1.
    """

    reverse: float = 0.5


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """`beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q` (GKD; Agarwal et al., 2024, eq. 1).

    As in GKD's code 0 stands for `KL(p || q)` and 1 for `KL(q || p)`.

    Args:
        beta: The teacher's part in the mixture, 0 to 1.
    """

    beta: float = 0.5


@dataclass(frozen=True)
class SkewForwardKl(Divergence):
    """`KL(p || alpha p + (1 - alpha) q)` (DistiLLM; Ko et al., 2024, eq. 4).

    Args:
        alpha: The teacher's part in the mixture, 0 to 1.
    """

    alpha: float = 0.1


@dataclass(frozen=True)
class SkewReverseKl(Divergence):
    """`KL(q || (1 - alpha) p + alpha q)` (DistiLLM; Ko et al., 2024, eq. 5).

    Args:
        alpha: The student's part in the mixture, 0 to 1.
    """

    alpha: float = 0.1


@dataclass(frozen=True)
class TotalVariation(Divergence):
    """`sum |p - q| / 2`."""


@dataclass(frozen=True)
class SoftCrossEntropy(Divergence):
    """`-sum p log q`: the forward KL and the teacher's entropy, of the same gradient."""


@dataclass(frozen=True)
class ExpectedAdvantage(Divergence):
    """`-sum q A` with `A = beta sum_i c_i log p_i` of a combination of teachers (ADPA; Gao et al., 2025).

    Args:
        beta: Scale of the advantage, above 0.
        low: The advantage is at least this.
        high: The advantage is at most this.
    """

    beta: float
    low: float = -math.inf
    high: float = math.inf

    def text(self) -> dict:
        beta = finite("beta of ExpectedAdvantage", self.beta)
        low = None if self.low == -math.inf else finite("low of ExpectedAdvantage", self.low)
        high = None if self.high == math.inf else finite("high of ExpectedAdvantage", self.high)
        return {"ExpectedAdvantage": {"beta": beta, "low": low, "high": high}}
