"""prefuse beside eager torch, torch.compile, TRL and Liger: same tensors and threads, in turn, in one run.

    python python/benches/against_torch.py [--rows 256] [--vocab 151936] [--rounds 10] [--output NAME.json]

Needs the installed wheel; TRL, Liger (on CUDA, where its kernels run) and matplotlib take part where they are
installed. On a CUDA device where there is one, else on the CPU. Prints the minimum of the rounds as a ratio to
ours, and the peak of memory beyond what was there before; writes both as JSON, and a plot beside it.
"""

import argparse
import json
import pathlib
import sys
import time

import prefuse
import torch
from prefuse import divergences
from prefuse.torch import distillation_loss, preference_loss, token_log_probs
from torch.nn.functional import kl_div, logsigmoid

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benches"))
from report import about  # noqa: E402

try:
    from trl.experimental.gkd import GKDTrainer
    from trl.trainer.utils import selective_log_softmax
except ImportError:
    GKDTrainer = selective_log_softmax = None
try:
    from liger_kernel.transformers.functional import liger_jsd, liger_kl_div
except ImportError:
    liger_jsd = liger_kl_div = None

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Case:
    """The tensors of a run: pairs of sequences of 64 tokens."""

    def __init__(self, rows: int, vocab: int, dtype: torch.dtype) -> None:
        self.sequences, length = rows // 64, 64
        shape = (self.sequences, length, vocab)
        self.logits = (3 * torch.randn(shape, device=DEVICE)).to(dtype).requires_grad_()
        self.teacher = (0.8 * self.logits).detach()
        self.labels = torch.randint(vocab, shape[:-1], device=DEVICE)
        self.reference = torch.randn(self.sequences, device=DEVICE) - 700.0

    def log_probs(self) -> torch.Tensor:
        return self.logits.log_softmax(-1).gather(-1, self.labels[..., None])[..., 0]

    def dpo(self, log_probs: torch.Tensor) -> torch.Tensor:
        chosen, rejected = (log_probs.float().sum(-1) - self.reference).chunk(2)
        return -logsigmoid(0.1 * (chosen - rejected)).mean()

    def kl(self) -> torch.Tensor:
        ours, theirs = (of.log_softmax(-1, torch.float32) for of in (self.logits, self.teacher))
        return kl_div(ours, theirs, reduction="sum", log_target=True) / self.labels.numel()


def works(case: Case) -> dict[str, dict]:
    """Losses, or values without a gradient, by what is computed and by whom."""
    kinds = {"forward KL": divergences.ForwardKl(), "Jensen-Shannon": divergences.JensenShannon()}
    dpo = prefuse.Dpo(0.1)
    found = {
        "token log-probs": {
            "prefuse": lambda: token_log_probs(case.logits, case.labels),
            "torch": case.log_probs,
        },
        "DPO and gradient": {
            "prefuse": lambda: preference_loss(
                dpo, case.logits, case.labels, reference=case.reference
            ).loss,
            "torch": lambda: case.dpo(case.log_probs()),
        },
        "forward KL and gradient": {
            "prefuse": lambda: distillation_loss(
                kinds["forward KL"], case.logits, case.teacher
            ).loss,
            "torch": case.kl,
        },
        "Jensen-Shannon and gradient": {
            "prefuse": lambda: distillation_loss(
                kinds["Jensen-Shannon"], case.logits, case.teacher
            ).loss,
        },
    }
    if selective_log_softmax is not None:
        by_trl = lambda: selective_log_softmax(case.logits, case.labels)  # noqa: E731
        found["token log-probs"]["TRL"] = by_trl
        found["DPO and gradient"]["TRL"] = lambda: case.dpo(by_trl())
        found["Jensen-Shannon and gradient"]["TRL"] = lambda: GKDTrainer.generalized_jsd_loss(
            case.logits.float(), case.teacher.float(), beta=0.5
        )
    for forms in found.values():
        if "torch" in forms:
            forms["torch.compile"] = torch.compile(forms["torch"])
    if liger_jsd is not None and DEVICE == "cuda":
        rows = lambda of: of.flatten(0, 1).log_softmax(-1)  # noqa: E731
        found["forward KL and gradient"]["Liger"] = lambda: liger_kl_div(
            rows(case.logits), rows(case.teacher), log_target=True
        )
        found["Jensen-Shannon and gradient"]["Liger"] = lambda: liger_jsd(
            rows(case.logits), rows(case.teacher)
        )
    return found


def run(case: Case, work: str, form) -> float:
    case.logits.grad = None
    synchronize()
    start = time.perf_counter()
    if work.endswith("gradient"):
        form().backward()
    else:
        with torch.no_grad():
            form()
    synchronize()
    return 1e3 * (time.perf_counter() - start)


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def status(name: str) -> int:
    line = next(
        of
        for of in pathlib.Path("/proc/self/status").read_text().splitlines()
        if of.startswith(name)
    )
    return 1024 * int(line.split()[1])


def peak(case: Case, work: str, form) -> int:
    """Bytes beyond those before the call, the gradient among them."""
    case.logits.grad = None
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(case, work, form)
        return torch.cuda.max_memory_allocated() - before
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run(case, work, form)
    return max(status("VmHWM") - before, 0)


def measured(case: Case, rounds: int) -> dict:
    found = {}
    for work, forms in works(case).items():
        for form in forms.values():
            run(case, work, form)
        best = dict.fromkeys(forms, float("inf"))
        for _ in range(rounds):
            for name, form in forms.items():
                best[name] = min(best[name], run(case, work, form))
        found[work] = {
            name: {"milliseconds": round(best[name], 3), "bytes": peak(case, work, form)}
            for name, form in forms.items()
        }
    return found


def plot(results: dict, path: pathlib.Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    works_of = list(next(iter(results.values())))
    figure, axes = plt.subplots(1, len(works_of), figsize=(4 * len(works_of), 3.5))
    for axis, work in zip(axes, works_of):
        for place, (dtype, of) in enumerate(results.items()):
            ratios = {
                name: each["milliseconds"] / of[work]["prefuse"]["milliseconds"]
                for name, each in of[work].items()
            }
            positions = [index + 0.4 * place for index in range(len(ratios))]
            axis.bar(positions, ratios.values(), width=0.4, label=dtype)
            axis.set_xticks(positions, ratios.keys(), rotation=30)
        axis.set_title(work)
        axis.set_ylabel("time over that of prefuse")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path.with_suffix(".svg"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=pathlib.Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        results[name] = measured(Case(given.rows, given.vocab, dtype), given.rounds)
        for work, forms in results[name].items():
            ours = forms["prefuse"]["milliseconds"]
            print(f"{name} [{given.rows}, {given.vocab}] {work}")
            for form, of in forms.items():
                ratio = of["milliseconds"] / ours
                print(
                    f"  {form:14} {of['milliseconds']:9.2f} ms {ratio:7.2f} of ours, "
                    f"{of['bytes'] / 2**20:8.1f} MiB"
                )
    if given.output is None:
        return
    report = {
        **about(),
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "command": f"python python/benches/against_torch.py --rows {given.rows} --vocab {given.vocab}",
        "unit": f"milliseconds, minimum over {given.rounds} rounds; bytes beyond those before the call",
        "results": results,
    }
    given.output.write_text(json.dumps(report, indent=2) + "\n")
    plot(results, given.output)


if __name__ == "__main__":
    main()
