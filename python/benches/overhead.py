"""What a call costs beside its arithmetic: tiny CPU tensors, microseconds, the least of many rounds.

python python/benches/overhead.py [OUTPUT.json]
"""

import json
import pathlib
import sys
import time

import prefuse
import torch
from prefuse.torch import preference_loss, token_log_probs

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benches"))
from report import about  # noqa: E402

ROUNDS, CALLS = 20, 2000


def microseconds(call, calls: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - start) / calls)
    return round(1e6 * best, 2)


def main() -> None:
    logits, labels = torch.randn(2, 2, 8), torch.tensor([[1, 2], [3, 4]])
    needs_grad = logits.clone().requires_grad_()
    dpo, reference = prefuse.Dpo(0.1), torch.zeros(2)

    def by_torch(of):
        return of.log_softmax(-1).gather(-1, labels[..., None])[..., 0]

    calls = {
        "token_log_probs": lambda: token_log_probs(logits, labels),
        "torch's log_softmax and gather": lambda: by_torch(logits),
        "token_log_probs and backward": lambda: token_log_probs(needs_grad, labels)
        .sum()
        .backward(),
        "torch's and backward": lambda: by_torch(needs_grad).sum().backward(),
        "preference_loss and backward": lambda: preference_loss(
            dpo, needs_grad, labels, reference=reference
        ).loss.backward(),
    }
    found = {}
    for name, call in calls.items():
        found[name] = microseconds(call, CALLS if "backward" not in name else CALLS // 10)
        print(f"{name:32} {found[name]:8.2f} us")
    if len(sys.argv) > 1:
        report = {**about(), "torch": torch.__version__, "unit": "microseconds", "results": found}
        pathlib.Path(sys.argv[1]).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
