"""README and docs as tests read them: their text, and the commands in them with what they should print.

A command stands in a block of `bash`. What follows it as comments is what it prints; `…` stands for anything, and a
number of three digits before it is the HTTP status. A block that no test can run says so in its first line:
`# not run here: ` and why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}

NOT_RUN = "# not run here: "


@dataclass(frozen=True)
class Block:
    """A fenced block. `language` is empty where none is named; `line` is that of its fence."""

    page: str
    line: int
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        """Whether a test runs it."""
        return self.language == "bash" and not self.text.startswith(NOT_RUN)


@dataclass(frozen=True)
class Step:
    """Commands, and what the last of them prints; empty: not told. `status` is that of its HTTP request."""

    line: int
    commands: str
    printed: str
    status: int | None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = TEXTS[page]
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def steps(block: Block) -> list[Step]:
    """Return what is to be run one after another, each up to where its output is told."""
    found = []
    parts = re.findall(r"((?:^(?!#).*\n)+)((?:^#.*\n)*)", block.text, re.MULTILINE)
    line = block.line + 1
    for commands, comments in parts:
        told = "\n".join(comment.removeprefix("#").strip() for comment in comments.splitlines())
        status = re.match(r"(\d{3}) ", told)
        printed = told[status.end() :] if status else told
        found.append(Step(line, commands, printed, int(status[1]) if status else None))
        line += (commands + comments).count("\n")
    return found


def fits(printed: str, told: str) -> bool:
    """Whether the last command printed what it should, spaces and line breaks and numbers of ports aside.

    What commands before it printed stands on lines of its own.
    """
    pattern = re.escape(_without_spaces(told)).replace("…", ".*")
    pattern = re.sub(r"(127\\?\.0\\?\.0\\?\.1:)\d+", r"\1\\d+", pattern)
    lines = printed.splitlines()
    ends = ("".join(lines[first:]) for first in range(max(len(lines), 1)))
    return any(re.fullmatch(pattern, _without_spaces(end), re.DOTALL) for end in ends)


def _without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


def pages_with_commands() -> list[str]:
    """Return the pages that have a block for a test to run."""
    return [page for page in TEXTS if any(block.is_run for block in blocks(page))]


def path_of(page: str) -> Path:
    """Return where a page is."""
    return ROOT / page
