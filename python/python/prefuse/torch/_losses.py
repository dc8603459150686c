"""Losses from logits, from sums of log-probs, and from rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._objective import Objective, Term, checked_reduction, indices, integer, terms_of
from ._autograd import Loss, ScalarLoss
from ._checks import by_token, check_logits, checked_labels, checked_pairs, numbers, pair_list
from ._log_probs import IGNORE, packing_of, rows_of
from ._ops import METRICS, described, per_token

_PAIRS = ("Pair", "JudgedPair", "RewardPair")
_BY_SEQUENCE = "sequence (or a tensor with one for each token)"


@dataclass(frozen=True, eq=False)
class LossOutput:
    """A loss and what was computed on the way to it.

    Attributes:
        loss: The sum of the terms, a scalar; what `backward` is called on.
        losses: `[units]` losses before reduction and weight of the term: one tensor, or for a list of terms one
            of each. For an objective on tokens the units are sequences.
        rewards: `[units, 2]` implicit rewards: of chosen and rejected, or of the response and 0; NaN for
            objectives on tokens and for rankings.
        terms: `[terms]` values of the terms, f64 on the host.
        log_probs: `[..]` log-probs of the tokens, which other losses may go on from; `None` where the caller
            gave sums.
        entropy: `[..]` entropies, where they were asked for or a term looks at them.
    """

    loss: Tensor
    losses: Tensor | tuple[Tensor, ...]
    rewards: Tensor | tuple[Tensor, ...]
    terms: Tensor
    log_probs: Tensor | None
    entropy: Tensor | None
    _metrics: Tensor

    @property
    def metrics(self) -> dict[str, float]:
        """What trainers log, by TRL's and verl's names where they have one; those that the terms have."""
        values, present = self._metrics.tolist()
        return {name: of for name, of, has in zip(METRICS, values, present) if has}


class _Description:
    """The batch of a loss, for the operators."""

    def __init__(self, terms: list[Term], sequences: int) -> None:
        self.terms, self.sequences = terms, sequences
        self.pairs: str | list | None = None
        self.groups = 0
        self.fields: dict = {}
        self.given: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor | None) -> None:
        if values is not None:
            self.given[name] = values

    def set_pairs(self, pairs, verdicts, inputs: dict) -> None:
        wants = any(term.objective.unit in _PAIRS for term in self.terms)
        if pairs is None and wants:
            pairs = "halves"
        self.pairs = None if pairs is None else checked_pairs(pairs, self.sequences)
        count = self.pair_count()
        for name, values in inputs.items():
            if values is not None and pairs is None:
                raise ValueError(f"{name}: expected pairs beside it, got none")
            self.add(name, numbers(name, values, count, "pair"))
        if verdicts is not None:
            self.fields["verdicts"] = pair_list("verdicts", verdicts)

    def pair_count(self) -> int:
        if self.pairs is None:
            return 0
        return self.sequences // 2 if isinstance(self.pairs, str) else len(self.pairs)

    def set_sequences(self, inputs: dict) -> None:
        for name, values in inputs.items():
            self.add(name, numbers(name, values, self.sequences, "sequence"))

    def set_groups(self, groups, weights) -> None:
        if groups is None:
            if weights is not None:
                raise ValueError("group_weights: expected groups beside it, got none")
            return
        if isinstance(groups, int):
            if groups <= 0 or self.sequences % groups:
                expected = f"a size that divides the {self.sequences} sequences"
                raise ValueError(f"groups: expected {expected}, got {groups}")
            self.fields["groups"] = integer("groups", groups)
            self.groups = self.sequences // groups
        else:
            sizes = self.fields["groups"] = indices("groups", groups)
            if sum(sizes) > self.sequences:
                expected = f"sizes of at most {self.sequences} sequences together"
                raise ValueError(f"groups: expected {expected}, got {sum(sizes)}")
            self.groups = len(sizes)
        self.add("group_weights", numbers("group_weights", weights, self.groups, "group"))

    def units(self) -> list[int]:
        return [self._units(term) for term in self.terms]

    def _units(self, term: Term) -> int:
        if term.objective.is_ranking:
            return self.groups
        if term.objective.unit in _PAIRS:
            return self.pair_count() if term.pairs is None else len(term.pairs)
        if isinstance(term.sequences, str):
            return self.pair_count() if term.sequences == "chosen" else self.sequences
        return len(term.sequences)

    def text(self, reduction, ignore_index: int) -> tuple[str, Tensor]:
        reduction = checked_reduction(reduction)
        return described(
            {
                "terms": [term.text(reduction) for term in self.terms],
                "pairs": self.pairs,
                "ignore_index": ignore_index,
                **self.fields,
            }
        )

    def arguments(self) -> tuple[list[Tensor], str]:
        return list(self.given.values()), ",".join(self.given)


def _refuse(terms: list[Term], units: tuple[str, ...], expected: str) -> None:
    for term in terms:
        if term.objective.unit in units:
            raise ValueError(f"objective: expected {expected}, got {term.objective.name}")


def _output(found, units: list[int], single: bool, log_probs, entropy) -> LossOutput:
    loss, losses, rewards, terms, metrics = found
    if not single:
        losses, rewards = losses.split(units), rewards.split(units)
    return LossOutput(loss, losses, rewards, terms, log_probs, entropy, metrics)


def preference_loss(
    objective: Objective | Term | Sequence,
    logits: Tensor,
    labels: Tensor,
    *,
    reference: Tensor | Sequence[float] | None = None,
    weights: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    pairs: str | Sequence[tuple[int, int]] | None = None,
    reduction: str | float = "mean",
    ignore_index: int = IGNORE,
    temperature: float = 1.0,
    margin=None,
    pair_beta=None,
    pair_soft_labels=None,
    pair_weights=None,
    verdicts: Sequence[tuple[int, int]] | None = None,
    scores=None,
    soft_labels=None,
    sequence_weights=None,
    groups: int | Sequence[int] | None = None,
    group_weights=None,
    old: Tensor | None = None,
    advantages: Tensor | Sequence[float] | None = None,
    return_entropy: bool = False,
    inplace: bool = False,
) -> LossOutput:
    """A loss of sequences of tokens: one read of the logits, and one visit more for the gradient.

    Shapes: logits `[sequences, length, vocab]`, or `[tokens, vocab]` (or `[1, tokens, vocab]`) with
    `cu_seqlens`; labels of the tokens, already shifted (`shift_labels`). Numbers by sequence, pair or group may
    be lists or tensors. `docs/objectives.md` says which of them an objective looks at; what is given and not
    looked at is an error, but for a reference, whose sums a log may want, and for pairs.

    Args:
        objective: One of `prefuse.objectives`, a `prefuse.Term`, or a list of these or of `(weight, objective)`.
        reference: The reference model's log-probs, by token or as `[sequences]` sums (times the weights, where
            there are `weights`).
        weights: Factors of the tokens' log-probs; a token of weight 0 does not count.
        cu_seqlens: Where each sequence starts, and the number of tokens.
        pairs: `"halves"` (all chosen, then all rejected; where an objective compares pairs and nothing is said),
            `"interleaved"`, or `(chosen, rejected)` sequences.
        reduction: Of terms that have none of their own: see `prefuse.Term`.
        ignore_index: The label of tokens that do not count.
        temperature: Divides the logits, 1e-30 to 1e30.
        margin: `[pairs]`, subtracted within the objective.
        pair_beta: `[pairs]` factors of the objective's beta.
        pair_soft_labels: `[pairs]` probabilities that the chosen one is the better.
        pair_weights: `[pairs]` factors of the losses.
        verdicts: Sequences of a judge's verdicts for and against each pair.
        scores: `[sequences]` scores of a judge or a reward model.
        soft_labels: `[sequences]` probabilities that a sequence is desirable (KTO: 1 or 0).
        sequence_weights: `[sequences]` factors of the losses over single sequences.
        groups: Sizes of groups of neighbouring sequences, for rankings; a number for all.
        group_weights: `[groups]` factors of the losses.
        old: Log-probs by token of the policy that sampled, for objectives on tokens.
        advantages: By sequence or by token.
        return_entropy: Also the entropies of the tokens.
        inplace: The backward writes the gradient over the logits: see `token_log_probs`.

    Raises:
        ValueError: What does not fit: shapes, labels, pairs, parameters, an input that is missing or unused.
        TypeError: Another type of a tensor's elements or of an argument.
    """
    terms = terms_of(objective)
    check_logits(logits)
    labels = checked_labels(labels, logits)
    weights = by_token("weights", weights, logits, torch.float32)
    offsets = packing_of(logits, cu_seqlens)
    _refuse(
        terms, ("Reward", "RewardPair"), "one of log-probs (reward_loss takes those of rewards)"
    )
    description = _Description(terms, offsets.shape[0] - 1)
    description.add("cu_seqlens", offsets)
    description.add("weights", weights)
    _add_reference(description, reference, logits)
    description.add("old", by_token("old", old, logits, per_token(logits)))
    _add_advantages(description, advantages, logits)
    of_pairs = {"margin": margin, "pair_beta": pair_beta}
    of_pairs |= {"pair_soft_labels": pair_soft_labels, "pair_weights": pair_weights}
    description.set_pairs(pairs, verdicts, of_pairs)
    of_sequences = {"scores": scores, "soft_labels": soft_labels}
    description.set_sequences(of_sequences | {"sequence_weights": sequence_weights})
    description.set_groups(groups, group_weights)
    text = description.text(reduction, integer("ignore_index", ignore_index))

    uses_entropy = any("entropy" in term.objective.inputs for term in terms)
    with_entropy = uses_entropy or return_entropy
    counted = labels if weights is None else labels.masked_fill(weights == 0, ignore_index)
    log_probs, maximum, log_sum, *more = rows_of(
        logits, counted, ignore_index, temperature, with_entropy, False, False, inplace
    )
    units = description.units()
    of_units = (sum(units), len(terms), uses_entropy)
    options = (*description.arguments(), logits.shape[-1], temperature, *text, *of_units)
    entropy = more[0] if more else None
    found = Loss.apply(
        log_probs,
        entropy if uses_entropy else None,
        maximum,
        log_sum,
        counted.contiguous(),
        options,
    )
    return _output(found, units, isinstance(objective, (Objective, Term)), log_probs, entropy)


def _is_by_token(what: str, values, description: _Description, logits: Tensor) -> bool:
    """Whether it has a number for each token; where the shapes cannot tell, every sequence is a token."""
    if not isinstance(values, Tensor) or values.shape != logits.shape[:-1]:
        return False
    ambiguous = values.shape == (description.sequences,)
    if ambiguous and not torch.compiler.is_compiling():
        offsets = description.given["cu_seqlens"]
        if not torch.equal(offsets, torch.arange(len(offsets), device="cpu")):
            count = description.sequences
            raise ValueError(
                f"{what}: expected a list by sequence, or [1, {count}] by token beside logits "
                f"[1, {count}, vocab], got [{count}], which could be either"
            )
    return True


def _add_reference(description: _Description, reference, logits: Tensor) -> None:
    if reference is None:
        return
    if _is_by_token("reference", reference, description, logits):
        values = by_token("reference", reference, logits, per_token(logits))
        description.add("reference", values)
        return
    if isinstance(reference, Tensor) and reference.shape != (description.sequences,):
        expected = f"{list(logits.shape[:-1])} by token or [{description.sequences}] by sequence"
        raise ValueError(f"reference: expected shape {expected}, got {list(reference.shape)}")
    sums = numbers("reference", reference, description.sequences, _BY_SEQUENCE)
    description.add("reference_sums", sums)


def _add_advantages(description: _Description, advantages, logits: Tensor) -> None:
    if _is_by_token("advantages", advantages, description, logits):
        values = by_token("advantages", advantages, logits, per_token(logits))
        description.add("token_advantages", values)
        return
    values = numbers("advantages", advantages, description.sequences, _BY_SEQUENCE)
    description.add("advantages", values)


def ranking_loss(
    ranking: Objective | Term | Sequence,
    logits: Tensor,
    labels: Tensor,
    *,
    groups: int | Sequence[int],
    **options,
) -> LossOutput:
    """`preference_loss` of rankings, such as `prefuse.PlackettLuce(beta=0.1)`, over groups of responses.

    Args:
        groups: Sizes of groups of neighbouring sequences, best response first where the ranking says so; a
            number for all.
        options: Those of `preference_loss`.
    """
    return preference_loss(ranking, logits, labels, groups=groups, **options)


def policy_loss(
    objective: Objective | Term | Sequence,
    logits: Tensor,
    labels: Tensor,
    *,
    advantages: Tensor | Sequence[float],
    old: Tensor | None = None,
    reference: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str | float = "mean",
    **options,
) -> LossOutput:
    """`preference_loss` of objectives on sampled tokens, such as `prefuse.PpoClip(0.2, 0.28)`.

    Args:
        advantages: By sequence or by token.
        old: Log-probs by token of the policy that sampled; the policy's own where it is `None`.
        reference: Log-probs by token of the reference, for a KL penalty.
        weights: Factors of the tokens, 0 for those that do not count: a mask.
        reduction: `"mean"` over all counted tokens (DAPO), `"sequence_mean"` (GRPO), or a number (Dr. GRPO).
        options: Those of `preference_loss`.
    """
    return preference_loss(
        objective,
        logits,
        labels,
        advantages=advantages,
        old=old,
        reference=reference,
        weights=weights,
        reduction=reduction,
        **options,
    )


def _scalar(objective, values: Tensor, tokens, reference, what: str, options: dict) -> LossOutput:
    terms = terms_of(objective)
    _refuse(terms, ("Token",), "one of whole sequences (policy_loss takes those of tokens)")
    if not isinstance(values, Tensor):
        raise TypeError(f"{what}: expected a tensor, got {type(values).__name__}")
    if values.dim() != 1 or not values.dtype.is_floating_point:
        got = f"{list(values.shape)} of {values.dtype}"
        raise ValueError(f"{what}: expected shape [sequences] of floating point, got {got}")
    if values.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{what}: expected a tensor on the CPU or on CUDA, got {values.device}")
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    tokens = numbers("tokens", tokens, values.shape[0], "sequence")
    tokens = None if tokens is None else tokens.to(values.device)
    known = {"pairs", "verdicts", "margin", "pair_beta", "pair_soft_labels", "pair_weights"}
    known |= {"scores", "soft_labels", "sequence_weights", "groups", "group_weights", "reduction"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"unexpected argument {unknown[0]!r}; expected one of {sorted(known)}")
    given = options.get
    description = _Description(terms, values.shape[0])
    sums = numbers("reference_log_probs", reference, values.shape[0], "sequence")
    description.add("reference_sums", sums)
    names = ("margin", "pair_beta", "pair_soft_labels", "pair_weights")
    of_pairs = {name: given(name) for name in names}
    description.set_pairs(given("pairs"), given("verdicts"), of_pairs)
    names = ("scores", "soft_labels", "sequence_weights")
    description.set_sequences({name: given(name) for name in names})
    description.set_groups(given("groups"), given("group_weights"))
    text = description.text(given("reduction", "mean"), IGNORE)
    units = description.units()
    arguments = (*description.arguments(), *text, sum(units), len(terms))
    found = ScalarLoss.apply(values.contiguous(), tokens, arguments)
    return _output(found, units, isinstance(objective, (Objective, Term)), None, None)


def objective_loss(
    objective: Objective | Term | Sequence,
    policy_log_probs: Tensor,
    reference_log_probs: Tensor | Sequence[float] | None = None,
    *,
    tokens: Tensor | None = None,
    **options,
) -> LossOutput:
    """A loss of `[sequences]` sums of log-probs that are known already; differentiable by them.

    Args:
        policy_log_probs: Sums over each sequence's counted tokens.
        reference_log_probs: The same of the reference.
        tokens: How many tokens of each sequence count, for objectives that divide by them; 1 each otherwise.
        options: Of `preference_loss`: pairs, verdicts, margin, pair_beta, pair_soft_labels, pair_weights,
            scores, soft_labels, sequence_weights, groups, group_weights, reduction.

    Raises:
        ValueError: What does not fit: shapes, pairs, parameters, an input that is missing or unused.
        TypeError: Another type of a tensor's elements or of an argument.
    """
    what = "policy_log_probs"
    return _scalar(objective, policy_log_probs, tokens, reference_log_probs, what, options)


def reward_loss(
    objective: Objective | Term | Sequence,
    rewards: Tensor,
    **options,
) -> LossOutput:
    """A loss of a reward model, such as `prefuse.BradleyTerry()`, over `[sequences]` rewards.

    Args:
        options: Of `preference_loss`: pairs, margin, pair_soft_labels, pair_weights, scores, sequence_weights,
            groups, group_weights, reduction.

    Raises:
        ValueError: What does not fit: shapes, pairs, parameters, an input that is missing or unused.
        TypeError: Another type of a tensor's elements or of an argument.
    """
    return _scalar(objective, rewards, None, None, "rewards", options)
