"""The row stages of prefuse, torch and a memory copy: same logits and threads, in turn, in one run.

Needs torch 2.11 and the built bench; where TRL is installed, its divergence takes part:

    cargo bench --no-run --bench against_copy
    python benches/against_torch.py target/release/deps/against_copy-HASH benches/results/NAME.json 256

Prints the minimum of N rounds of each as a ratio to the copy, and writes all of it as JSON with
machine, commit and date. torch's best form of log-probs writes `log_softmax` into a ready buffer;
its usual form also gathers the labels. A divergence moves the bytes of a copy of one and a half
tensors; torch's is composed, in f32: `log_softmax` of both, `kl_div` and the way back. For ours the
bytes that were allocated meanwhile are printed too: all memory beyond inputs and gradient.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
from report import about

try:
    from trl.experimental.gkd import GKDTrainer
except ImportError:
    GKDTrainer = None

VOCAB, ROUNDS = 151_936, 20


def ask(process: subprocess.Popen, work: str) -> tuple[float, int]:
    process.stdin.write(work + "\n")
    process.stdin.flush()
    nanoseconds, allocated = process.stdout.readline().split()
    return int(nanoseconds) / 1e6, int(allocated)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def torch_forms(logits: torch.Tensor) -> dict:
    labels = torch.randint(VOCAB, (len(logits), 1))
    ready = torch.empty_like(logits)
    teacher = 0.8 * logits

    def forward_kl() -> None:
        student = logits.detach().requires_grad_()
        ours, theirs = (torch.log_softmax(x, -1, torch.float32) for x in (student, teacher))
        loss = torch.nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
        loss.backward()

    def jensen_shannon() -> None:
        student = logits.detach().requires_grad_()
        GKDTrainer.generalized_jsd_loss(student.float(), teacher.float(), beta=0.5).backward()

    forms = {
        "torch log_softmax into a ready buffer": lambda: torch.log_softmax(logits, -1, out=ready),
        "torch log_softmax and gather": lambda: torch.log_softmax(logits, -1).gather(-1, labels),
        "torch forward KL and gradient": forward_kl,
    }
    if GKDTrainer is not None:
        forms["TRL Jensen-Shannon and gradient"] = jensen_shannon
    return forms


def measure(binary: str, name: str, dtype: torch.dtype, tokens: int) -> tuple[dict, dict]:
    """Milliseconds, the least of all rounds, and bytes allocated meanwhile, the most."""
    logits = (torch.randn(tokens, VOCAB) * 3).to(dtype)
    with tempfile.NamedTemporaryFile() as file:
        logits.view(torch.uint8).numpy().tofile(file.name)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [binary, "--serve", name, str(tokens), file.name]
        process = subprocess.Popen(command, **pipes)
        ours = process.stdout.readline().rstrip().split("\t")
    forms = torch_forms(logits)
    best = dict.fromkeys([*ours, *forms], float("inf"))
    allocated = dict.fromkeys(ours, 0)
    for _ in range(ROUNDS):
        for key in ours:
            milliseconds, size = ask(process, key)
            best[key], allocated[key] = min(best[key], milliseconds), max(allocated[key], size)
        for key, form in forms.items():
            best[key] = min(best[key], timed(form))
    process.stdin.close()
    process.wait()
    return best, allocated


def main() -> None:
    binary, output, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    results, memory = {}, {}
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        best, memory[name] = measure(binary, name, dtype, tokens)
        results[name] = {key: round(value, 3) for key, value in best.items()}
        print(f"{name} [{tokens}, {VOCAB}], minimum of {ROUNDS} rounds")
        for key, value in best.items():
            line = f"  {key:48} {value:8.2f} ms {value / best['copy']:6.2f} of the copy"
            beyond = f", {memory[name][key]} bytes" if key in memory[name] else ""
            print(line + beyond)
    report = {
        **about(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "command": "python benches/against_torch.py BINARY OUTPUT ROWS",
        "shape": [tokens, VOCAB],
        "rounds": ROUNDS,
        "unit": "milliseconds, minimum over the rounds",
        "results": results,
        "bytes beyond inputs and gradient": memory,
    }
    pathlib.Path(output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
