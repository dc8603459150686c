"""Writes python/prefuse/objectives.py from the list of objectives of the built module:

python generate_objectives.py
"""

import keyword
import pathlib
import re
import textwrap

from prefuse import _core

FILE = pathlib.Path(__file__).parent / "python" / "prefuse" / "objectives.py"

HEAD = '''"""Every objective and ranking, by its name in Rust.

Written by `generate_objectives.py` from the list in `src/objectives/mod.rs`.
"""

from __future__ import annotations

from typing import Literal

from ._objective import Objective
'''

UNITS = {
    "Pair": "pairs of responses",
    "Sequence": "single sequences",
    "Token": "sampled tokens",
    "JudgedPair": "pairs and the verdicts of a judge",
    "RewardPair": "pairs of rewards",
    "Reward": "rewards",
    "Ranking": "groups of responses",
}


def plain(text: str) -> str:
    """A doc comment without Rust's links, as one text of paragraphs."""
    text = re.sub(r"\[`([^`]+)`\](\([^)]*\))?", r"`\1`", text)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def named(parameter: str) -> str:
    """As an argument: with an underscore where Python has a keyword."""
    return f"{parameter}_" if keyword.iskeyword(parameter) else parameter


def kind(variants: list[str]) -> str:
    if not variants:
        return "float"
    if variants == ["False", "True"]:
        return "bool"
    return f"Literal[{', '.join(chr(34) + of + chr(34) for of in variants)}]"


def default(value: float, variants: list[str]) -> str:
    if not variants:
        return repr(value).replace("e+", "e")
    of = variants[int(value)]
    return of if variants == ["False", "True"] else f'"{of}"'


def wrapped(text: str, indent: str, more: str) -> str:
    return textwrap.fill(text, 110, initial_indent=indent, subsequent_indent=more)


def class_of(name: str, unit: str, doc: str, parameters: list) -> str:
    parameters = [(named(parameter), *more) for parameter, *more in parameters]
    lines = [f"class {name}(Objective):"]
    text = plain(doc) if unit != "Ranking" else f"The ranking `{doc}` of docs/objectives.md."
    paragraphs = [wrapped(of, "    ", "    ").strip() for of in text.split("\n\n")]
    paragraphs.append(f"Over {UNITS[unit]}.")
    lines.append('    """' + "\n\n    ".join(paragraphs))
    if parameters:
        lines += ["", "    Args:"]
    for parameter, about, expected, _, variants in parameters:
        about = plain(about)
        if not variants:
            about = f"{about.rstrip('.')} ({expected})." if about else f"{expected}."
        lines.append(wrapped(f"{parameter}: {about}", " " * 8, " " * 12))
    lines += ['    """', "", f'    unit = "{unit}"']
    enums = {of: variants for of, *_, variants in parameters if variants and variants[0] != "False"}
    if enums:
        lines.append("    variants = {")
        for of, variants in enums.items():
            lines.append(f'        "{of}": (')
            lines += [f'            "{variant}",' for variant in variants]
            lines.append("        ),")
        lines.append("    }")
    if not parameters:
        lines += ["", "    def __init__(self) -> None:", "        super().__init__()"]
        return "\n".join(lines) + "\n"
    lines += ["", "    def __init__(", "        self,"]
    required = [of for of in parameters if of[3] is None]
    optional = [of for of in parameters if of[3] is not None]
    lines += [f"        {of}: {kind(variants)}," for of, *_, variants in required]
    if optional:
        lines.append("        *,")
    for of, _, _, value, variants in optional:
        lines.append(f"        {of}: {kind(variants)} = {default(value, variants)},")
    lines += ["    ) -> None:", "        super().__init__("]
    lines += [f"            {of}={of}," for of, *_ in parameters]
    lines.append("        )")
    return "\n".join(lines) + "\n"


def text() -> str:
    listed = sorted(_core.objectives())
    classes = [class_of(*of) for of in listed]
    names = "".join(f'    "{name}",\n' for name, *_ in listed)
    return f"{HEAD}\n__all__ = [\n{names}]\n\n\n" + "\n\n".join(classes)


if __name__ == "__main__":
    FILE.write_text(text())
