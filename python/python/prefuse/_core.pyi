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
        gradient: tuple[_Memory, _Rows] | None,
    ) -> None: ...

def objectives() -> list[
    tuple[str, str, str, list[tuple[str, str, str, float | None, list[str]]]]
]: ...
def check_objective(
    name: str, is_ranking: bool, parameters: Sequence[tuple[str, float]]
) -> list[str]: ...
def accuracy(margins: Sequence[float]) -> float: ...
def align_xplore_rewards(
    pairs: Sequence[tuple[int, int]],
    with_preference: Sequence[float],
    without: Sequence[float],
    threshold: float = ...,
) -> list[float]: ...
def aot_reference(
    pairs: Sequence[tuple[int, int]], policy: Sequence[float], reference: Sequence[float]
) -> list[float]: ...
def aot_unpaired(
    pairs: Sequence[tuple[int, int]], policy: Sequence[float], reference: Sequence[float]
) -> list[tuple[int, int]]: ...
def best_and_worst(scores: Sequence[float]) -> tuple[int, int]: ...
def consistency(a: Sequence[float], b: Sequence[float]) -> float: ...
def easy_pairs(reward_gaps: Sequence[float], threshold: float) -> list[int]: ...
def expected_calibration_error(
    probabilities: Sequence[float], outcomes: Sequence[float], bins: int
) -> float: ...
def fuse_references(
    sources: Sequence[Sequence[float]],
    pivot: Sequence[float],
    pairs: Sequence[tuple[int, int]],
    fusion: str = "max_margin",
    epsilon: float | None = None,
) -> list[float]: ...
def group_advantages(
    rewards: Sequence[float],
    prompts: Sequence[int],
    baseline: str = "mean",
    spread: str = "group",
    epsilon: float = 1e-4,
) -> list[float]: ...
def keep_largest(margins: Sequence[float], share: float) -> list[int]: ...
def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float: ...
def kto_baseline(log_ratios: Sequence[float]) -> float: ...
def kto_log_ratios(
    policy: Sequence[float],
    reference: Sequence[float],
    tokens: Sequence[float],
    empty: str = "skip",
) -> list[float]: ...
def ld_dpo_weights(
    alpha: float,
    pairs: Sequence[tuple[int, int]],
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> list[float]: ...
def log_odds(averages: Sequence[float]) -> list[float]: ...
def log_odds_ratios(chosen: Sequence[float], rejected: Sequence[float]) -> list[float]: ...
def mask_dpo_weights(
    cu_seqlens: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    sentences: Sequence[tuple[int, int, int, bool]],
    *,
    of_ids: bool = False,
    keep_unlabelled: bool = True,
) -> list[float]: ...
def mask_low_entropy(
    advantages: Sequence[float],
    entropies: Sequence[float],
    share: float,
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
    by_token: bool = False,
) -> list[float]: ...
def mask_off_policy(
    advantages: Sequence[float],
    policy: Sequence[float],
    old: Sequence[float],
    threshold: float,
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
    by_token: bool = False,
) -> list[float]: ...
def mm_dpo_batch_beta(
    margins: Sequence[float], draws: Sequence[float], beta: float, weight: float
) -> float: ...
def mm_dpo_beta_factors(reward_gaps: Sequence[float], weight: float, k: float) -> list[float]: ...
def nash_md_weights(
    policy: Sequence[float],
    reference: Sequence[float],
    win_probabilities: Sequence[float],
    beta: float,
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> list[float]: ...
def next_quill_weights(
    with_history: Sequence[float],
    without_history: Sequence[float],
    labels: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
    high: float = 0.9,
    low: float = 0.1,
    threshold: float = 0.05,
) -> tuple[list[float], float]: ...
def p3o_advantages(
    pairs: Sequence[tuple[int, int]],
    policy: Sequence[float],
    old: Sequence[float],
    reference: Sequence[float],
    rewards: Sequence[float],
    form: str = "separate",
    beta: float = 0.05,
    truncation: float = 10.0,
    scaled: bool = False,
) -> list[float]: ...
def p3o_pairs(
    pairs: Sequence[tuple[int, int]],
    policy: Sequence[float],
    old: Sequence[float],
    reference: Sequence[float],
    rewards: Sequence[float],
    beta: float = 0.05,
    truncation: float = 10.0,
    scaled: bool = False,
) -> tuple[list[tuple[int, int]], list[float], list[float]]: ...
def posteriors(log_odds: Sequence[float], reliability: Sequence[float]) -> list[float]: ...
def preference_log_odds(probabilities: Sequence[float]) -> list[float]: ...
def probability_sums(
    log_probs: Sequence[float],
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> list[float]: ...
def prompt_scaled(
    advantages: Sequence[float], prompts: Sequence[int], factors: Sequence[float]
) -> list[float]: ...
def ranks(scores: Sequence[float], ties: str = "ordinal") -> list[float]: ...
def shift_labels(
    ids: Sequence[int], cu_seqlens: Sequence[int], ignore_index: int = -100
) -> list[int]: ...
def strength_log_odds(chosen: Sequence[float], rejected: Sequence[float]) -> list[float]: ...
def tgdpo_weights(
    aligned: Sequence[float],
    reference: Sequence[float],
    pairs: Sequence[tuple[int, int]],
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
    alpha: float = 0.5,
    beta: float = 0.1,
) -> list[float]: ...
def win_rates(scores: Sequence[float]) -> list[float]: ...
def without_neutral(advantages: Sequence[float], neutral: Sequence[bool]) -> list[float]: ...
def wpo_pair_weights(
    pairs: Sequence[tuple[int, int]], sequence_weights: Sequence[float], clamp_at_one: bool = False
) -> list[float]: ...
def wpo_weights(
    log_probs: Sequence[float],
    log_sum_squares: Sequence[float],
    labels: Sequence[int],
    cu_seqlens: Sequence[int],
    weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> list[float]: ...
@final
class Moments:
    def __new__(cls, count: int = 0, mean: float = 0.0, deviations: float = 0.0) -> Moments: ...
    def extend(self, values: Sequence[float]) -> None: ...
    def merge(self, other: Moments) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def deviations(self) -> float: ...
    @property
    def variance(self) -> float: ...
    @property
    def unbiased_std(self) -> float: ...

@final
class Reliability:
    def __new__(
        cls, annotators: int, initial: float = 0.9, momentum: float = 0.1
    ) -> Reliability: ...
    @property
    def values(self) -> list[float]: ...
    def of(self, annotators: Sequence[int]) -> list[float]: ...
    def update(self, annotators: Sequence[int], posteriors: Sequence[float]) -> None: ...

@final
class ConfidenceThreshold:
    def __new__(cls, window: int = 50, quantile: float = 0.1) -> ConfidenceThreshold: ...
    def push(self, margin: float) -> None: ...
    @property
    def value(self) -> float: ...
    def soft_labels(self, margins: Sequence[float], strength: float) -> list[float]: ...
