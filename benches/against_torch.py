"""The row stages of prefuse, torch and a memory copy: same shape and threads, in turn, in one run.

Needs torch 2.11 and the built bench:

    cargo bench --no-run --bench against_copy
    python benches/against_torch.py target/release/deps/against_copy-HASH benches/results/NAME.json 256

Prints the minimum of N rounds of each as a ratio to the copy, and writes all of it as JSON with
machine, commit and date. torch's best form of log-probs writes `log_softmax` into a ready buffer;
its usual form also gathers the labels. A divergence moves the bytes of a copy of one and a half
tensors; torch's is composed, in f32: `log_softmax` of both, `kl_div` and the way back.
"""

import datetime
import json
import pathlib
import subprocess
import sys
import time

import torch

VOCAB, ROUNDS = 151_936, 40


def ask(process: subprocess.Popen, work: str) -> float:
    process.stdin.write(work + "\n")
    process.stdin.flush()
    return int(process.stdout.readline()) / 1e6


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def torch_forms(dtype: torch.dtype, tokens: int) -> dict:
    logits = (torch.randn(tokens, VOCAB) * 3).to(dtype)
    labels = torch.randint(VOCAB, (tokens, 1))
    ready = torch.empty_like(logits)
    teacher = 0.8 * logits

    def forward_kl() -> None:
        student = logits.detach().requires_grad_()
        ours, theirs = (torch.log_softmax(x, -1, torch.float32) for x in (student, teacher))
        loss = torch.nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
        loss.backward()

    return {
        "torch log_softmax into a ready buffer": lambda: torch.log_softmax(logits, -1, out=ready),
        "torch log_softmax and gather": lambda: torch.log_softmax(logits, -1).gather(-1, labels),
        "torch forward KL and gradient": forward_kl,
    }


def measure(binary: str, name: str, dtype: torch.dtype, tokens: int) -> dict[str, float]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([binary, "--serve", name, str(tokens)], **pipes)
    ours = process.stdout.readline().rstrip().split("\t")
    work = {key: lambda key=key: ask(process, key) for key in ours}
    for key, form in torch_forms(dtype, tokens).items():
        work[key] = lambda form=form: timed(form)
    best = dict.fromkeys(work, float("inf"))
    for _ in range(ROUNDS):
        for key, run in work.items():
            best[key] = min(best[key], run())
    process.stdin.close()
    process.wait()
    return best


def machine() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags"))
    model = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    simd = "AVX-512" if "avx512bw" in flags else "AVX2" if "avx2" in flags else "baseline"
    cache = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    cache = cache.read_text().strip() if cache.exists() else "unknown"
    return f"{model}, {simd}, {torch.get_num_threads()} threads, level 3 cache {cache}"


def main() -> None:
    binary, output, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.manual_seed(0)
    results = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        best = measure(binary, name, dtype, tokens)
        results[name] = {key: round(value, 3) for key, value in best.items()}
        print(f"{name} [{tokens}, {VOCAB}], minimum of {ROUNDS} rounds")
        for key, value in best.items():
            print(f"  {key:48} {value:8.2f} ms {value / best['copy']:6.2f} of the copy")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": machine(),
        "torch": torch.__version__,
        "command": "python benches/against_torch.py BINARY OUTPUT ROWS",
        "shape": [tokens, VOCAB],
        "rounds": ROUNDS,
        "unit": "milliseconds, minimum over the rounds",
        "results": results,
    }
    pathlib.Path(output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
