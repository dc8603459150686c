"""What a file of results says beside its figures, and the figures of criterion's last run as such a file.

    cargo bench --bench objective
    python benches/report.py objective benches/results/NAME.json

Nanoseconds for each element (a pair, a sequence, a token), the median of criterion's samples.
"""

import datetime
import json
import pathlib
import subprocess
import sys


def machine() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags"))
    model = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    simd = "AVX-512" if "avx512bw" in flags else "AVX2" if "avx2" in flags else "baseline"
    cache = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    cache = cache.read_text().strip() if cache.exists() else "unknown"
    return f"{model}, {simd}, level 3 cache {cache}"


def about() -> dict:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    date = datetime.date.today().isoformat()
    return {"date": date, "commit": commit.stdout.strip(), "machine": machine()}


def nanoseconds(group: str) -> dict[str, float]:
    found = {}
    for path in sorted(pathlib.Path("target/criterion", group).glob("*/new/benchmark.json")):
        benchmark = json.loads(path.read_text())
        estimates = json.loads(path.with_name("estimates.json").read_text())
        elements = benchmark["throughput"]["Elements"]
        nanoseconds = estimates["median"]["point_estimate"] / elements
        found[benchmark["function_id"]] = round(nanoseconds, 1)
    return found


def main() -> None:
    group, output = sys.argv[1], sys.argv[2]
    results = nanoseconds(group)
    most = max(results, key=results.get)
    print(f"{len(results)} entries, at most {results[most]} ns: {most}")
    report = {
        **about(),
        "command": f"cargo bench --bench {group}; python benches/report.py {group} OUTPUT",
        "unit": "nanoseconds for each element on one core, gradient included",
        "results": results,
    }
    pathlib.Path(output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
