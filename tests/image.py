"""Parses the Dockerfile."""

from __future__ import annotations

import json
import re

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def copied_into_the_image() -> set[str]:
    """Return the files and folders of the project that are copied into the image."""
    sources: set[str] = set()
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE):
        sources |= set(line.split()[:-1])
    return sources


def image_environment() -> dict[str, str]:
    """Return the environment variables of the image."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    return dict(entry.split("=", 1) for entry in block.replace("\\\n", " ").split())


def image_command() -> list[str]:
    """Return the default command of the image."""
    command: list[str] = json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])
    return command
