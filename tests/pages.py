"""Reads README and docs: their text, and their commands with the expected output.

Commands are in `bash` blocks. The comments that follow a command are its expected output; `…` matches anything, and a
leading number of three digits is the HTTP status. The first line of a block that no test can run is
`# not run here: ` with the reason.
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
    """A fenced block. `language` may be empty; `line` is the line of its opening fence."""

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
    """Commands, and the expected output and HTTP status of the last one; empty and None: not documented."""

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
    """Return the steps of a block in order; a step ends with the expected output of its last command."""
    found = []
    parts = re.findall(r"((?:^(?!#).*\n)+)((?:^#.*\n)*)", block.text, re.MULTILINE)
    line = block.line + 1
    for commands, comments in parts:
        expected = "\n".join(comment.removeprefix("#").strip() for comment in comments.splitlines())
        status = re.match(r"(\d{3}) ", expected)
        printed = expected[status.end() :] if status else expected
        found.append(Step(line, commands, printed, int(status[1]) if status else None))
        line += (commands + comments).count("\n")
    return found


def fits(printed: str, expected: str) -> bool:
    """Whether the output ends with the expected one; ignores whitespace and port numbers.

    Lines before it are the output of earlier commands.
    """
    pattern = re.escape(_without_spaces(expected)).replace("…", ".*")
    pattern = re.sub(r"(127\\?\.0\\?\.0\\?\.1:)\d+", r"\1\\d+", pattern)
    lines = printed.splitlines()
    ends = ("".join(lines[first:]) for first in range(max(len(lines), 1)))
    return any(re.fullmatch(pattern, _without_spaces(end), re.DOTALL) for end in ends)


def _without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


def pages_with_commands() -> list[str]:
    """Return the pages with a block that a test runs."""
    return [page for page in TEXTS if any(block.is_run for block in blocks(page))]


def path_of(page: str) -> Path:
    """Return the path of a page."""
    return ROOT / page
