"""Writing and checking a golden file of one line per entry."""

import json
from pathlib import Path


def lines(value):
    """A list or a mapping with one line per entry."""

    def dump(x):
        return json.dumps(x, separators=(",", ":"), allow_nan=False)

    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{dump(k)}:{dump(v)}" for k, v in value.items()) + "\n}"
    return "[\n" + ",\n".join(dump(v) for v in value) + "\n]"


def document(header, **tables):
    """The text of a golden file: the header, then tables with one line per entry."""
    head = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in header.items()]
    return (
        "{"
        + ",\n".join(head + [f'"{key}":{lines(table)}' for key, table in tables.items()])
        + "}\n"
    )


def write_or_check(name, text, arguments):
    """Writes a golden file beside this module, or compares it with the one there."""
    path = Path(__file__).parent / name
    if arguments not in ([], ["--check"]):
        raise SystemExit("usage: [--check]")
    if not arguments:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{name} differs from what its script computes")
