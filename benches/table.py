"""The README's tables of speed, and the plot beside them, from files of results.

    python benches/table.py benches/results/NAME.json benches/results/NAME-sweep.json

The first is of `benches/against_torch.py`, the second of `cargo bench --bench against_copy -- --sweep FILE`. Writes
what lies between the README's two marks, and NAME.svg where matplotlib is installed.
"""

import json
import pathlib
import sys

README = pathlib.Path("README.md")
MARKS = ("<!-- python benches/table.py -->\n", "<!-- end of the tables -->\n")
STAGES = {
    "log_probs": "stage 1 `log_probs`",
    "log_probs, entropy and argmax": "with entropy and argmax",
    "log_probs, half masked": "half of the rows masked",
    "logit_grads in place": "stage 4 `logit_grads` in place",
    "logit_grads in place, half masked": "half of the rows masked, set to 0",
    "logit_grads in place, half masked already zero": "half of the rows masked, zero already",
    "logit_grads out of place": "out of place",
    "token loss and gradient in one visit": "PPO's clip and gradient, one visit, in place",
    "DPO loss and gradient": "DPO loss and gradient, in place",
    "forward KL and gradient": "forward KL and gradient",
    "Jensen-Shannon and gradient": "Jensen-Shannon and gradient",
}
PEERS = [
    ("torch log_softmax into a ready buffer", "log_probs", "`log_softmax` into a ready buffer"),
    ("torch log_softmax and gather", "log_probs", "`log_softmax` and `gather`"),
    ("torch DPO loss and gradient", "DPO loss and gradient", "DPO, composed, and backward"),
    (
        "torch forward KL and gradient",
        "forward KL and gradient",
        "forward KL: two `log_softmax` in f32, `kl_div`, backward",
    ),
    (
        "TRL Jensen-Shannon and gradient",
        "Jensen-Shannon and gradient",
        "TRL's `generalized_jsd_loss`, backward",
    ),
]
SWEPT = {
    "log_probs": "stage 1",
    "logit_grads in place": "stage 4",
    "token loss and gradient in one visit": "PPO",
    "forward KL and gradient": "forward KL",
}
TYPES = ("bf16", "f32")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def stages(results: dict) -> str:
    rows = []
    for key, name in STAGES.items():
        cells = [results[dtype][key] for dtype in TYPES]
        over = [
            cell["milliseconds"] / results[dtype]["copy"]["milliseconds"]
            for cell, dtype in zip(cells, TYPES, strict=True)
        ]
        floors = [
            f"{cell['milliseconds'] / cell['floor']:.2f}" if "floor" in cell else ""
            for cell in cells
        ]
        rows.append([name, *(f"{ratio:.2f}" for ratio in over), *floors])
    return table(["", "bf16 / copy", "f32 / copy", "bf16 / floor", "f32 / floor"], rows)


def peers(results: dict) -> str:
    rows = []
    for theirs, ours, name in PEERS:
        if theirs in results["bf16"]:
            times = [
                results[d][theirs]["milliseconds"] / results[d][ours]["milliseconds"] for d in TYPES
            ]
            rows.append([name, *(f"{ratio:.1f}" for ratio in times)])
    return table(["as many times the time of ours", "bf16", "f32"], rows)


def swept(cases: list[dict]) -> str:
    rows = []
    for case in cases:
        if case["dtype"] == "bf16":
            name = f"{case['shape']}, {case['simd']}, {case['threads']} threads"
            times = [case["results"][key] for key in SWEPT]
            ratios = [f"{time['milliseconds'] / time['floor']:.2f}" for time in times]
            rows.append([name.replace("1 threads", "1 thread"), *ratios])
    return table(["bf16, time over the floor", *SWEPT.values()], rows)


def plot(report: dict, path: pathlib.Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("matplotlib is not installed: no plot")
        return
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for axis, dtype in zip(axes, TYPES, strict=True):
        results = report["results"][dtype]
        for index, (theirs, ours, name) in enumerate(PEERS):
            for offset, key in ((0.2, ours), (-0.2, theirs)):
                if key in results:
                    color = "tab:blue" if key == ours else "tab:gray"
                    axis.barh(index + offset, results[key]["milliseconds"], 0.38, color=color)
            axis.plot([results[ours]["floor"]] * 2, [index, index + 0.4], color="black")
        axis.set_xscale("log")
        axis.set_yticks(range(len(PEERS)), [name.split(":")[0] for _, _, name in PEERS])
        axis.set_xlabel(f"ms, {dtype} {report['shape']}, {report['threads']} threads")
    figure.suptitle("prefuse (blue), its floor (line), torch and TRL (gray)")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    report = json.loads(path.read_text())
    cases = json.loads(pathlib.Path(sys.argv[2]).read_text())
    before, _, rest = README.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    tables = "\n".join(["", stages(report["results"]), peers(report["results"]), swept(cases), ""])
    README.write_text(before + MARKS[0] + tables + MARKS[1] + after)
    plot(report, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
