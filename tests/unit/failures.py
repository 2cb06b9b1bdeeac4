"""The recorded calls that failed."""

from __future__ import annotations

from tests.record import case, case_names

# A kubectl that was killed, or still ran, has not reported a failure: its exit code alone counts.
FAILED = {name for name in case_names() if case(name).returncode > 0 and case(name).stderr}
