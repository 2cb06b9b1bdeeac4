"""`provisioner.py COMMAND --help`."""

from __future__ import annotations

import pytest

from sandboxes.cli import main


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("serve", "Serve the REST API"),
        ("render", "Print the objects of one sandbox as JSON"),
        ("reap", "Run the reaper once"),
        ("check", "1: a check failed"),
    ],
)
def test_the_help_of_a_command_says_what_the_command_does(
    command: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert what in " ".join(capsys.readouterr().out.split())
