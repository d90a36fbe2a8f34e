"""The table of docs/errors.md, and the messages that stand in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAMILY = {
    "QuadcodecError", "FormatError", "CorruptRecordError", "UnsupportedVersionError", "ManifestError", "MaskError",
    "StoreError", "TrainingError", "CheckpointError",
}  # fmt: skip
BUILDERS = {"_damaged": "truncated or damaged", "_refuse": "", "_diverged": "is no number"}
"""Functions that put a message together, and what they add to it."""


def rows(*headings: str) -> list[str]:
    """Return the first column of the table below some headings."""
    sections = re.split(r"^## ", (ROOT / "docs" / "errors.md").read_text(), flags=re.MULTILINE)[1:]
    chosen = [section for section in sections if section.split("\n")[0] in headings]
    assert len(chosen) == len(headings)
    return [row for section in chosen for row in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return "'{}'" if node.conversion == ord("r") else "{}"
    return ""


def messages(*packages: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of every message of an error of ours; {} stands for what a run puts in."""
    for file in sorted(f for package in packages for f in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            name = node.func.id
            if name in FAMILY or name in BUILDERS:
                text = " ".join([BUILDERS.get(name, ""), *(_text(argument) for argument in node.args)])
                if len(re.sub(r"[^a-z]", "", text)) > 8:  # else it passes another message on
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", text
