"""TRL's trainer with ours in its place, and TRL's own functions beside ours."""

import pytest
import torch

trl = pytest.importorskip("trl")

import prefuse.trl as ours  # noqa: E402
from datasets import Dataset  # noqa: E402
from prefuse import divergences  # noqa: E402
from prefuse.torch import distillation_loss, entropies, token_log_probs  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl.experimental.gkd import GKDTrainer  # noqa: E402
from trl.trainer.utils import entropy_from_logits, selective_log_softmax  # noqa: E402

VOCAB = 64


def model(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=VOCAB, pad_token_id=0, eos_token_id=1, **sizes, **heads)
    return LlamaForCausalLM(config)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{index}": index for index in range(2, VOCAB)}
    words |= {"<pad>": 0, "</s>": 1}
    plain = Tokenizer(models.WordLevel(words, unk_token="w2"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="</s>")


def dataset():
    torch.manual_seed(3)

    def words(count):
        return " ".join(f"w{index}" for index in torch.randint(2, VOCAB, (count,)).tolist())

    rows = [
        {
            "prompt": words(2 + index),
            "chosen": " " + words(3 + index),
            "rejected": " " + words(6 - index),
        }
        for index in range(4)
    ]
    return Dataset.from_list(rows)


def trainer(kind, folder, **options):
    args = trl.DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **{"bf16": False, **options},
    )
    return kind(
        model=model(),
        ref_model=model(1),
        args=args,
        train_dataset=dataset(),
        processing_class=tokenizer(),
    )


def trained(kind, folder, **options):
    torch.manual_seed(0)
    of = trainer(kind, folder, **options)
    of.train()
    logs = [log for log in of.state.log_history if "loss" in log]
    return logs, torch.cat([parameter.detach().flatten() for parameter in of.model.parameters()])


CASES = {
    "sigmoid": {},
    "ipo": {"loss_type": ["ipo"]},
    "several": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "aot": {"loss_type": ["aot"], "label_smoothing": 0.1},
    "aot_unpaired": {"loss_type": ["aot_unpaired"]},
    "forward_kl": {"f_divergence_type": "forward_kl"},
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.1},
    "ld_alpha": {"ld_alpha": 0.3},
    # Beside others, such as "sft" and "hinge", TRL itself fails: it multiplies in place.
    "wpo": {"use_weighting": True},
    "precomputed": {"precompute_ref_log_probs": True},
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_trls_own(name, tmp_path):
    expected, parameters = trained(trl.DPOTrainer, tmp_path / "trl", **CASES[name])
    found, others = trained(ours.DPOTrainer, tmp_path / "ours", **CASES[name])
    names = [
        of
        for of in expected[0]
        if of.startswith(
            (
                "loss",
                "rewards",
                "logps",
                "logits",
                "entropy",
                "mean_token",
                "num_tokens",
                "grad_norm",
            )
        )
    ]
    assert len(names) >= 12
    for log, other in zip(found, expected, strict=True):
        for of in names:
            assert log[of] == pytest.approx(other[of], rel=2e-3, abs=2e-4), of
    torch.testing.assert_close(others, parameters, rtol=1e-3, atol=1e-5)


def test_packed_runs_are_padded_ones(tmp_path):
    padded, parameters = trained(ours.DPOTrainer, tmp_path / "padded")
    packed, others = trained(ours.DPOTrainer, tmp_path / "packed", padding_free=True)
    for log, other in zip(packed, padded, strict=True):
        for of in ("loss", "rewards/margins", "logps/chosen", "entropy", "mean_token_accuracy"):
            assert log[of] == pytest.approx(other[of], rel=1e-4, abs=1e-5), of
    torch.testing.assert_close(others, parameters, rtol=1e-4, atol=1e-6)


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ld_alpha: expected above 0"):
        trainer(ours.DPOTrainer, tmp_path, ld_alpha=0.0, loss_type=["ipo"])
    for version in ("1.8.0", "1.17.0", "2.0.0"):
        with pytest.raises(ImportError, match=f"expected trl >=1.16,<1.17, got trl {version}"):
            ours._check_version(version)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_functions_of_trl(dtype):
    """The cases of TRL's own tests of these functions, with ours in their place."""
    torch.manual_seed(0)
    logits = torch.randn(4, 8, 32, dtype=dtype)
    index = torch.randint(0, 32, (4, 8))
    close = {torch.float16: 2e-3, torch.bfloat16: 4e-2}.get(dtype, 1e-5)
    found = token_log_probs(logits, index)
    expected = selective_log_softmax(logits, index).to(found)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
    found = entropies(logits)
    expected = entropy_from_logits(logits).to(found)
    torch.testing.assert_close(found, expected, rtol=close, atol=close)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gkd_loss(beta, temperature):
    student, teacher = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    labels = torch.randint(0, 32, (2, 5))
    labels[0, 3:] = -100
    expected = GKDTrainer.generalized_jsd_loss(
        student, teacher, labels=labels, beta=beta, temperature=temperature
    )
    found = distillation_loss(
        divergences.JensenShannon(beta), student, teacher, labels, temperature=temperature
    )
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-6)
