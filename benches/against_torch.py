"""Token log-probs of prefuse and of torch on the same shape and threads, in turn, in one run.

Needs torch 2.11 and a built bench: `cargo bench --no-run --bench against_copy`, then
`python benches/against_torch.py target/release/deps/against_copy-*`. Prints the minimum of N
rounds of each and the ratios; torch's best form writes `log_softmax` into a ready buffer, its usual
form also gathers the labels.
"""

import subprocess
import sys
import time

import torch

TOKENS, VOCAB, ROUNDS = 256, 151_936, 30


def served(binary: str, dtype: str) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([binary, "--serve", dtype], **pipes)


def ask(process: subprocess.Popen, work: str) -> float:
    process.stdin.write(work + "\n")
    process.stdin.flush()
    return int(process.stdout.readline()) / 1e6


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    binary = sys.argv[1]
    torch.manual_seed(0)
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        logits = (torch.randn(TOKENS, VOCAB) * 3).to(dtype)
        labels = torch.randint(VOCAB, (TOKENS, 1))
        ready = torch.empty_like(logits)

        def into_ready(logits=logits, ready=ready):
            torch.log_softmax(logits, -1, out=ready)

        def usual(logits=logits, labels=labels):
            torch.log_softmax(logits, -1).gather(-1, labels)

        ours = served(binary, name)
        work = {
            "memory copy": lambda p=ours: ask(p, "copy"),
            "prefuse log_probs": lambda p=ours: ask(p, "log_probs"),
            "torch log_softmax, ready buffer": lambda f=into_ready: timed(f),
            "torch log_softmax and gather": lambda f=usual: timed(f),
        }
        best = dict.fromkeys(work, float("inf"))
        for _ in range(ROUNDS):
            for key, run in work.items():
                best[key] = min(best[key], run())
        ours.stdin.close()
        ours.wait()
        print(f"{name} [{TOKENS}, {VOCAB}], {torch.get_num_threads()} threads, torch {torch.__version__}")
        for key, milliseconds in best.items():
            ratio = milliseconds / best["prefuse log_probs"]
            print(f"  {key:34} {milliseconds:8.2f} ms {ratio:6.2f} of ours")


if __name__ == "__main__":
    main()
