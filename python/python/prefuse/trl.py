"""`DPOTrainer`: TRL's, with its log-probs and losses from prefuse.

    from prefuse.trl import DPOTrainer

in the place of `from trl import DPOTrainer`; everything else stays, `padding_free=True` included, which TRL has
disabled. For a subclass of TRL's trainer, `PrefuseMixin` stands before it in the list of bases.
"""

from __future__ import annotations

import contextlib
import importlib.metadata

import torch
from torch import Tensor

from . import objectives, statistics
from ._objective import Term
from .torch import objective_loss, sequence_log_probs, shift_labels, token_log_probs
from .torch._log_probs import IGNORE

# What the mixin overrides is TRL's own and changes from one version to the next.
VERSIONS = ((1, 16), (1, 17))

try:
    _version = importlib.metadata.version("trl")
except importlib.metadata.PackageNotFoundError as error:
    raise ImportError("prefuse.trl needs TRL: pip install 'prefuse[trl]'") from error


def _check_version(version: str) -> None:
    low, high = VERSIONS
    if not low <= tuple(int(part) for part in version.split(".")[:2]) < high:
        expected = f"trl >={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
        raise ImportError(f"prefuse.trl: expected {expected}, got trl {version}")


_check_version(_version)

import trl  # noqa: E402
from accelerate.utils import is_peft_model  # noqa: E402
from trl.models.utils import disable_gradient_checkpointing  # noqa: E402
from trl.trainer.utils import use_adapter  # noqa: E402

_DIVERGENCES = {
    "reverse_kl": "ReverseKl",
    "forward_kl": "ForwardKl",
    "js_divergence": "JensenShannon",
    "alpha_divergence": "Alpha",
}
_NOT_MODEL_INPUTS = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class PrefuseMixin:
    """Overrides where `trl.DPOTrainer` computes log-probs and losses.

    Raises `ValueError` for what it does not compute: `ld_alpha` of 0 with a loss that divides by lengths, and at
    the first batch inputs beside token ids, such as images.
    """

    def __init__(self, *args, **kwargs) -> None:
        given = kwargs.get("args") or next(
            (of for of in args if isinstance(of, trl.DPOConfig)), None
        )
        super().__init__(*args, **kwargs)
        self.padding_free = bool(given is not None and given.padding_free)
        if self.ld_alpha == 0 and {"ipo", "sigmoid_norm"} & set(self.loss_types):
            raise ValueError(
                "ld_alpha: expected above 0 beside losses that divide by lengths, got 0"
            )
        for loss_type in self.loss_types:
            self._objective(loss_type)

    def _objective(self, loss_type: str) -> Term:
        beta, smoothing = self.beta, self.label_smoothing
        held = {"divergence": _DIVERGENCES[self.f_divergence_type]}
        if self.f_divergence_type == "alpha_divergence":
            held["alpha"] = self.f_alpha_divergence_coef
        kinds = {
            "sigmoid": lambda: objectives.Dpo(beta, **held),
            "sigmoid_norm": lambda: objectives.Dpo(beta, length_normalized=True, **held),
            "hinge": lambda: objectives.Hinge(beta, **held),
            "ipo": lambda: objectives.Ipo(beta, length_normalized=True, **held),
            "exo_pair": lambda: objectives.ExoPair(beta, smoothing, **held),
            "robust": lambda: objectives.Robust(beta, smoothing, **held),
            "discopop": lambda: objectives.DiscoPop(
                beta, temperature=self.args.discopop_tau, **held
            ),
            "nca_pair": lambda: objectives.NcaPair(beta),
            "bco_pair": lambda: objectives.BcoPair(beta),
            "sppo_hard": lambda: objectives.SppoHard(beta),
            "aot": lambda: objectives.Dpo(beta, label_smoothing=smoothing),
            "aot_unpaired": lambda: objectives.Dpo(beta, label_smoothing=smoothing),
            "apo_zero": lambda: objectives.ApoZero(beta),
            "apo_down": lambda: objectives.ApoDown(beta),
            "sft": lambda: objectives.Nll(),
        }
        if loss_type not in kinds:
            expected = ", ".join(sorted(kinds))
            raise ValueError(f"loss_type: expected one of {expected}, got {loss_type!r}")
        if loss_type == "sft":
            return Term(objectives.Nll(), sequences="chosen", reduction="token_mean")
        return Term(kinds[loss_type]())

    def _batch(self, inputs: dict) -> dict:
        """Inputs of the model, labels of its logits, weights of the tokens, and offsets of packed sequences."""
        kwargs = {name: of for name, of in inputs.items() if name not in _NOT_MODEL_INPUTS}
        unknown = sorted(set(kwargs) - {"input_ids", "attention_mask"})
        if unknown:
            raise ValueError(f"inputs: expected token ids alone, got {unknown[0]}")
        kwargs["use_cache"] = False
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORE)
        labels, offsets = shift_labels(labels), None
        weights = self._length_weights(labels)
        if self.padding_free:
            mask = inputs["attention_mask"].bool()
            offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).cpu()
            positions = mask.cumsum(1) - 1
            kwargs["input_ids"], kwargs["attention_mask"] = inputs["input_ids"][mask][None], None
            kwargs["position_ids"] = positions[mask][None]
            # The first token of a sequence is nobody's label: the one before it is another sequence's.
            labels = labels[mask][None]
            weights = None if weights is None else weights[mask][None]
        return {"kwargs": kwargs, "labels": labels, "weights": weights, "offsets": offsets}

    def _length_weights(self, labels: Tensor) -> Tensor | None:
        """LD-DPO: `ld_alpha` for what a response has beyond the shorter one of its pair."""
        if self.ld_alpha is None:
            return None
        counted = labels != IGNORE
        lengths = counted.sum(1)
        shared = torch.minimum(*lengths.chunk(2)).repeat(2)
        beyond = counted.cumsum(1) > shared[:, None]
        return torch.where(beyond, float(self.ld_alpha), 1.0)

    def _reference_sums(self, model, batch: dict) -> Tensor:
        """`[sequences]` sums under the reference: a model of its own, or the adapter's base."""
        kwargs = {
            name: of for name, of in batch["kwargs"].items() if name != "output_router_logits"
        }
        adapter = contextlib.nullcontext()
        if self.ref_model is None and is_peft_model(self.model):
            unwrapped = self.accelerator.unwrap_model(self.model)
            name = "ref" if "ref" in unwrapped.peft_config else None
            adapter = use_adapter(unwrapped, adapter_name=name)
        checkpointing = self.args.gradient_checkpointing_kwargs
        with torch.no_grad(), disable_gradient_checkpointing(self.model, checkpointing), adapter:
            logits = model(**kwargs).logits
            sums, _ = sequence_log_probs(
                logits,
                batch["labels"],
                weights=batch["weights"],
                cu_seqlens=batch["offsets"],
            )
        return sums

    def compute_ref_log_probs(self, model, inputs):
        """`[pairs]` sums of chosen and of rejected responses under the reference."""
        with self.accelerator.autocast():
            return self._reference_sums(model, self._batch(inputs)).chunk(2)

    def _compute_loss(self, model, inputs, return_outputs):
        batch = self._batch(inputs)
        kwargs, labels = batch["kwargs"], batch["labels"]
        if self.aux_loss_enabled:
            kwargs["output_router_logits"] = True
        outputs = model(**kwargs)
        log_probs, entropy, squares, most = token_log_probs(
            outputs.logits,
            labels,
            return_entropy=True,
            return_log_sum_squares=True,
            return_argmax=True,
        )
        sums, tokens = self._sums(log_probs, batch)
        pair_weights = None
        if self.use_weighting:
            means = self._by_sequence(log_probs.detach() - squares, batch) / tokens.clamp(min=1)
            chosen, rejected = means.exp().chunk(2)
            pair_weights = chosen * rejected
        if self.precompute_ref_logps:
            reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
        else:
            of = self.model if self.ref_model is None else self.ref_model
            reference = self._reference_sums(of, batch)
        reference = reference.to(sums)
        loss = 0.0
        for loss_type, weight in zip(self.loss_types, self.loss_weights, strict=True):
            value = self._value(loss_type, (sums, reference, tokens), pair_weights)
            loss = loss + weight * value
        mode = "train" if self.model.training else "eval"
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss
            aux_loss = self.accelerator.gather_for_metrics(outputs.aux_loss).mean().item()
            self._metrics[mode]["aux_loss"].append(aux_loss)
        self._log_tokens(mode, inputs, batch, (outputs.logits, entropy, most))
        self._log_rewards(mode, sums.detach(), reference)
        return (loss, outputs) if return_outputs else loss

    def _sums(self, log_probs: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
        """As `sequence_log_probs`, of log-probs that are known."""
        counted = batch["labels"] != IGNORE
        weighed = log_probs if batch["weights"] is None else log_probs * batch["weights"]
        return self._by_sequence(weighed, batch), self._by_sequence(counted.to(log_probs), batch)

    def _by_sequence(self, values: Tensor, batch: dict) -> Tensor:
        if batch["offsets"] is None:
            return values.sum(1)
        offsets = batch["offsets"].tolist()
        lengths = [end - start for start, end in zip(offsets, offsets[1:])]
        return torch.stack([of.sum() for of in values[0].split(lengths)])

    def _value(self, loss_type: str, of_sequences: tuple, pair_weights: Tensor | None) -> Tensor:
        sums, reference, tokens = of_sequences
        term, count = self._objective(loss_type), len(sums) // 2
        if loss_type == "sft":
            value = objective_loss(term, sums, tokens=tokens, pairs="halves").loss
            return value if pair_weights is None else value * pair_weights.mean()
        pairs = [(pair, count + pair) for pair in range(count)]
        if loss_type == "aot":
            policy = sums.detach().tolist()
            reference = statistics.aot_reference(pairs, policy, reference.tolist())
        if loss_type == "aot_unpaired":
            ratios = (sums.detach() - reference).chunk(2)
            chosen, rejected = (of.argsort(stable=True).tolist() for of in ratios)
            pairs = [(of, count + to) for of, to in zip(chosen, rejected)]
        options = {"pairs": pairs, "pair_weights": pair_weights}
        return objective_loss(term, sums, reference, tokens=tokens, **options).loss

    def _log(self, mode: str, name: str, total: Tensor, count: Tensor) -> None:
        """A mean over all ranks."""
        total = self.accelerator.gather_for_metrics(total.detach()).sum()
        count = self.accelerator.gather_for_metrics(count).sum()
        mean = (total / count).item() if count > 0 else 0.0
        self._metrics[mode][name].append(mean)

    def _log_tokens(self, mode: str, inputs: dict, batch: dict, of_rows: tuple) -> None:
        logits, entropy, most = of_rows
        counted = batch["labels"] != IGNORE
        self._log(mode, "entropy", (entropy.detach() * counted).sum(), counted.sum())
        if mode == "train":
            ids = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
            self._total_train_tokens += ids // self._tp_size
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        means = logits.detach().mean(-1, dtype=torch.float32) * counted
        right = ((most == batch["labels"]) & counted).to(means)
        chosen, rejected = self._by_sequence(means, batch).chunk(2)
        of_chosen, of_rejected = self._by_sequence(counted.to(means), batch).chunk(2)
        self._log(mode, "logits/chosen", chosen.sum(), of_chosen.sum())
        self._log(mode, "logits/rejected", rejected.sum(), of_rejected.sum())
        right, _ = self._by_sequence(right, batch).chunk(2)
        self._log(mode, "mean_token_accuracy", right.sum(), of_chosen.sum())

    def _log_rewards(self, mode: str, sums: Tensor, reference: Tensor) -> None:
        chosen, rejected = (self.beta * (sums - reference)).chunk(2)
        of_chosen, of_rejected = sums.chunk(2)
        for name, values in [
            ("rewards/chosen", chosen),
            ("rewards/rejected", rejected),
            ("rewards/accuracies", (chosen > rejected).float()),
            ("rewards/margins", chosen - rejected),
            ("logps/chosen", of_chosen),
            ("logps/rejected", of_rejected),
        ]:
            gathered = self.accelerator.gather(values.contiguous())
            self._metrics[mode][name].append(gathered.mean().item())


class DPOTrainer(PrefuseMixin, trl.DPOTrainer):
    """`trl.DPOTrainer` with log-probs and losses from prefuse; see `PrefuseMixin` for what it refuses."""
