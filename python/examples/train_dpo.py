"""Trains a tiny causal language model by DPO or Mask-DPO, with Hugging Face's Trainer and losses from prefuse.

    python examples/train_dpo.py                    # DPO, some minutes on two cores
    python examples/train_dpo.py --mask             # Mask-DPO: sentences that are not to blame are spared
    python examples/train_dpo.py --packed           # the same losses without padding
    python examples/train_dpo.py --steps 4 --batch 4

The model is initialised at random (nothing is downloaded), tokens are bytes, and the data are those of the
Rust example: pairs of answers whose sentences are labelled as factual or not. On a machine with CUDA it runs
there. Needs torch and transformers.
"""

import argparse
import copy
import json
import pathlib

import prefuse
import torch
from prefuse.torch import mask_dpo_weights, preference_loss, sequence_log_probs, shift_labels
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

DATA = pathlib.Path(__file__).parents[2] / "examples" / "align" / "data"
PADDING, START, END, VOCAB = 256, 257, 258, 259
SIDES = ("chosen", "rejected")


def encoded(record: dict, side: str) -> dict:
    """Ids, the number of those that the prompt has, and sentences by positions of ids."""
    prompt = [START, *record["prompt"].encode(), ord("\n")]
    answer = record[side].encode()
    sentences = [
        (len(prompt) + of["start"], len(prompt) + of["end"], of["factual"])
        for of in record[f"{side}_sentences"]
    ]
    return {"ids": [*prompt, *answer, END], "prompt": len(prompt), "sentences": sentences}


def read(name: str) -> list[dict]:
    """Records in ASCII, whose offsets of characters are those of bytes."""
    lines = (DATA / name).read_text().splitlines()
    records = [json.loads(line) for line in lines if line.isascii()]
    return [{side: encoded(record, side) for side in SIDES} for record in records]


def collated(records: list[dict]) -> dict:
    """All chosen sequences, then all rejected ones, padded."""
    sequences = [record[side] for side in SIDES for record in records]
    length = max(len(of["ids"]) for of in sequences)
    ids = torch.full((len(sequences), length), PADDING)
    labels = torch.full((len(sequences), length), -100)
    for row, of in enumerate(sequences):
        found = torch.tensor(of["ids"])
        ids[row, : len(found)] = found
        labels[row, of["prompt"] : len(found)] = found[of["prompt"] :]
    labels = shift_labels(labels)
    sentences = [
        (row, *of) for row, sequence in enumerate(sequences) for of in sequence["sentences"]
    ]
    weights = mask_dpo_weights(labels, sentences, of_ids=True)
    return {"input_ids": ids, "labels": labels, "weights": weights, "mask": ids != PADDING}


class PreferenceTrainer(Trainer):
    """DPO with the likelihood of the chosen answer beside it, against a copy of the model as it began."""

    def __init__(self, *args, mask: bool, packed: bool, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mask, self.packed = mask, packed
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        chosen = prefuse.Term(prefuse.Nll(), sequences="chosen", reduction="token_mean")
        self.objective = [prefuse.Dpo(beta=0.1), chosen]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        mask, labels, weights = (inputs[name] for name in ("mask", "labels", "weights"))
        kwargs, offsets = {"input_ids": inputs["input_ids"], "attention_mask": mask.long()}, None
        if self.packed:
            offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).cpu()
            positions = (mask.cumsum(1) - 1)[mask][None]
            kwargs = {"input_ids": inputs["input_ids"][mask][None], "position_ids": positions}
            labels, weights = labels[mask][None], weights[mask][None]
        weights = weights if self.mask else None
        options = {"weights": weights, "cu_seqlens": offsets}
        with torch.no_grad():
            logits = self.reference(**kwargs, use_cache=False).logits
            reference, _ = sequence_log_probs(logits, labels, **options)
        logits = model(**kwargs, use_cache=False).logits
        found = preference_loss(
            self.objective, logits, labels, reference=reference, pairs="halves", **options
        )
        if self.state.global_step % self.args.logging_steps == 0 and model.training:
            names = ("rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected")
            self.log({name: found.metrics[name] for name in names})
        return (found.loss, {"losses": found.losses[0]}) if return_outputs else found.loss


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mask", action="store_true", help="Mask-DPO in place of DPO")
    parser.add_argument("--packed", action="store_true", help="without padding")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8, help="pairs in a step")
    parser.add_argument("--output", default="train-dpo")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            num_attention_heads=4,
            num_key_value_heads=4,
            pad_token_id=PADDING,
            bos_token_id=START,
            eos_token_id=END,
            **sizes,
        )
    )
    trainer = PreferenceTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=given.output,
            per_device_train_batch_size=given.batch,
            max_steps=given.steps,
            learning_rate=3e-3,
            logging_steps=max(given.steps // 6, 1),
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=read("train.jsonl"),
        data_collator=collated,
        mask=given.mask,
        packed=given.packed,
    )
    trainer.train()
    return trainer.state.log_history


if __name__ == "__main__":
    main()
