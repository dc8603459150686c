"""The core's calls on memory that is named by its address; see python/src."""

from collections.abc import Sequence
from typing import final

__version__: str
CUDA_BUILT_FOR: str | None

class CudaUnavailable(RuntimeError): ...
class DeviceError(RuntimeError): ...

_Memory = tuple[int, str, int]
_Rows = tuple[_Memory, int, int, int]
_Counted = tuple[_Memory, int]
_Evaluated = tuple[
    float, list[tuple[float, list[float], list[list[float]]]], list[tuple[str, float]]
]

@final
class Backend:
    @staticmethod
    def cpu() -> Backend: ...
    @staticmethod
    def reference() -> Backend: ...
    @staticmethod
    def cuda(ordinal: int, stream: int) -> Backend: ...
    def poll(self) -> None: ...
    def check(self) -> None: ...
    def log_probs(
        self,
        logits: _Rows,
        counted: _Counted,
        temperature: float,
        log_probs: _Memory,
        statistics: Sequence[_Memory] | None,
        more: Sequence[_Memory | None],
    ) -> None: ...
    def logit_grads(
        self,
        logits: _Rows,
        grads: _Rows | None,
        counted: _Counted,
        temperature: float,
        statistics: Sequence[_Memory],
        upstream: _Memory,
        entropy: Sequence[_Memory] | None,
    ) -> None: ...
    def sequence_sums(
        self,
        log_probs: _Memory,
        counted: _Counted,
        weights: _Memory | None,
        offsets: Sequence[int],
        totals: Sequence[_Memory],
    ) -> None: ...
    def token_grads(
        self,
        by_sums: _Memory,
        counted: _Counted,
        weights: _Memory | None,
        offsets: Sequence[int],
        grads: _Memory,
    ) -> None: ...
    def loss(
        self,
        text: str,
        tensors: dict[str, _Memory],
        vocab: int,
        temperature: float,
        rows: Sequence[_Memory],
        entropy: _Memory | None,
        grads: Sequence[_Memory | None],
    ) -> _Evaluated: ...
    def scalar_loss(
        self,
        text: str,
        tensors: dict[str, _Memory],
        values_of: _Memory,
        tokens: _Memory | None,
    ) -> tuple[_Evaluated, list[float]]: ...
    def divergence(
        self,
        text: str,
        student: _Rows,
        teachers: Sequence[_Rows],
        entries: Sequence[_Memory] | None,
        counted: _Counted,
        values: _Memory,
        entropies: Sequence[_Memory | None],
        gradient: tuple[_Memory, _Rows | None] | None,
    ) -> None: ...

def objectives() -> list[
    tuple[str, str, str, list[tuple[str, str, str, float | None, list[str]]]]
]: ...
def check_objective(
    name: str, is_ranking: bool, parameters: Sequence[tuple[str, float]]
) -> list[str]: ...
def accuracy(margins: Sequence[float]) -> float: ...
def expected_calibration_error(
    probabilities: Sequence[float], outcomes: Sequence[float], bins: int
) -> float: ...
def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float: ...
def consistency(a: Sequence[float], b: Sequence[float]) -> float: ...
def preference_log_odds(probabilities: Sequence[float]) -> list[float]: ...
def strength_log_odds(chosen: Sequence[float], rejected: Sequence[float]) -> list[float]: ...
def mm_dpo_beta_factors(reward_gaps: Sequence[float], weight: float, k: float) -> list[float]: ...
def log_odds(averages: Sequence[float]) -> list[float]: ...
def log_odds_ratios(chosen: Sequence[float], rejected: Sequence[float]) -> list[float]: ...
def aot_reference(
    pairs: Sequence[tuple[int, int]], policy: Sequence[float], reference: Sequence[float]
) -> list[float]: ...
def kto_log_ratios(
    policy: Sequence[float],
    reference: Sequence[float],
    tokens: Sequence[float],
    empty: str = "skip",
) -> list[float]: ...
def group_advantages(
    rewards: Sequence[float],
    prompts: Sequence[int],
    baseline: str = "mean",
    spread: str = "group",
    epsilon: float = 1e-4,
) -> list[float]: ...
def shift_labels(
    ids: Sequence[int], cu_seqlens: Sequence[int], ignore_index: int = -100
) -> list[int]: ...
def mask_dpo_weights(
    cu_seqlens: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    sentences: Sequence[tuple[int, int, int, bool]],
    *,
    of_ids: bool = False,
    keep_unlabelled: bool = True,
) -> list[float]: ...
