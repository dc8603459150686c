"""Stages and losses of prefuse, torch, a memory copy and the floor: same logits and threads, in turn, in one run.

Needs torch 2.11 and the built bench; where TRL is installed, its divergence takes part:

    cargo bench --no-run --bench against_copy
    python benches/against_torch.py target/release/deps/against_copy-HASH benches/results/NAME.json 256

Prints the minimum of N rounds of each as ratios to the copy and to the floor, and writes all of it as JSON with
machine, commit and date, for `benches/table.py`. torch's best form of log-probs writes `log_softmax` into a
ready buffer; its usual form also gathers the labels. Its DPO is `log_softmax`, `gather`, sums, `logsigmoid` and the
way back, from the logits to their gradient, in the logits' type. A divergence moves the bytes of a copy of one
and a half tensors; torch's is composed, in f32: `log_softmax` of both, `kl_div` and the way back. For ours the
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

    def dpo() -> None:
        policy = logits.detach().requires_grad_()
        tokens = torch.log_softmax(policy, -1).gather(-1, labels).float()
        chosen, rejected = tokens.view(4, -1).sum(-1).view(2, 2)
        reference = torch.tensor([[-700.0, -710.0], [-705.0, -695.0]])
        margin = (chosen - reference[0]) - (rejected - reference[1])
        torch.nn.functional.logsigmoid(0.1 * margin).mean().neg().backward()

    forms = {
        "torch log_softmax into a ready buffer": lambda: torch.log_softmax(logits, -1, out=ready),
        "torch log_softmax and gather": lambda: torch.log_softmax(logits, -1).gather(-1, labels),
        "torch DPO loss and gradient": dpo,
        "torch forward KL and gradient": forward_kl,
    }
    if GKDTrainer is not None:
        forms["TRL Jensen-Shannon and gradient"] = jensen_shannon
    return forms


def measure(binary: str, name: str, dtype: torch.dtype, tokens: int) -> dict:
    """By name: milliseconds, the least of all rounds, and for ours the floor and the most bytes allocated."""
    logits = (torch.randn(tokens, VOCAB) * 3).to(dtype)
    with tempfile.NamedTemporaryFile() as file:
        logits.view(torch.uint8).numpy().tofile(file.name)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [binary, "--serve", name, str(tokens), file.name]
        process = subprocess.Popen(command, **pipes)
        ours = json.loads(process.stdout.readline())
    forms = torch_forms(logits)
    best = dict.fromkeys([*(key for key, _, _ in ours), *forms], float("inf"))
    allocated = dict.fromkeys(best, 0)
    for _ in range(ROUNDS):
        for key, _, _ in ours:
            milliseconds, size = ask(process, key)
            best[key], allocated[key] = min(best[key], milliseconds), max(allocated[key], size)
        for key, form in forms.items():
            best[key] = min(best[key], timed(form))
    process.stdin.close()
    process.wait()
    found = {key: {"milliseconds": round(value, 3)} for key, value in best.items()}
    for key, moves, exponentials in ours:
        found[key]["bytes"] = allocated[key]
        if moves:
            floor = max(sum(best[move] for move in moves), exponentials * best["exponentials"])
            found[key]["floor"] = round(floor, 3)
    return found


def main() -> None:
    binary, output, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    results = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        results[name] = found = measure(binary, name, dtype, tokens)
        print(f"{name} [{tokens}, {VOCAB}], minimum of {ROUNDS} rounds")
        for key, value in found.items():
            time, copy = value["milliseconds"], found["copy"]["milliseconds"]
            floor = f"{time / value['floor']:6.2f} of the floor" if "floor" in value else ""
            beyond = f"{value['bytes']:8} bytes" if "bytes" in value else ""
            print(f"  {key:48} {time:8.2f} ms {time / copy:6.2f} of the copy {floor:20} {beyond}")
    report = {
        **about(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "command": "python benches/against_torch.py BINARY OUTPUT ROWS",
        "shape": [tokens, VOCAB],
        "rounds": ROUNDS,
        "unit": "milliseconds, minimum over the rounds; bytes beyond inputs and gradient",
        "results": results,
    }
    pathlib.Path(output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
