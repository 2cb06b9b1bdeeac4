"""extra_mounts: which directories of the node a caller may have, and where."""

from __future__ import annotations

import pytest

from sandboxes.errors import BadRequest
from sandboxes.models.requests import ExtraMount
from sandboxes.spec.mounts import CONTAINER_PATHS, checked_mounts

BASE = "/srv/deer-flow"


def mount(host_path: str, container_path: str = "/mnt/acp-workspace", *, read_only: bool = False) -> ExtraMount:
    return ExtraMount(host_path=host_path, container_path=container_path, read_only=read_only)


def test_the_container_paths_are_the_contract() -> None:
    assert {
        "/mnt/acp-workspace",
        "/mnt/skills/custom",
        "/mnt/skills/integrations",
        "/mnt/integrations/lark-cli/config",
        "/mnt/integrations/lark-cli/config/locks",
        "/mnt/integrations/lark-cli/data",
        "/mnt/integrations/lark-cli/runtime",
    } == CONTAINER_PATHS


def test_paths_are_normalised_and_parents_come_first() -> None:
    locks = mount(f"{BASE}//u/./locks/", "/mnt/integrations/lark-cli/config/locks/")
    config = mount(f"{BASE}/u/x/../config", "/mnt/integrations/lark-cli/config", read_only=True)
    assert checked_mounts([locks, config], BASE) == (
        mount(f"{BASE}/u/config", "/mnt/integrations/lark-cli/config", read_only=True),
        mount(f"{BASE}/u/locks", "/mnt/integrations/lark-cli/config/locks"),
    )


def test_two_leading_slashes_are_one() -> None:
    assert checked_mounts([mount(f"/{BASE}/a")], BASE) == (mount(f"{BASE}/a"),)


def test_without_mounts_nothing_needs_a_base() -> None:
    assert checked_mounts([], None) == ()


@pytest.mark.parametrize(
    "host_path",
    [
        "/etc",
        BASE,
        f"{BASE}/",
        f"{BASE}/..",
        f"{BASE}/../etc",
        f"{BASE}/a/../../etc",
        f"{BASE}-other/a",
        "srv/deer-flow/a",
        "",
        f"{BASE}/a\0b",
        f"{BASE}/a\nb",
        f"{BASE}/{'a' * 4096}",
    ],
)
def test_a_host_path_outside_the_base_is_refused(host_path: str) -> None:
    with pytest.raises(BadRequest):
        checked_mounts([mount(host_path)], BASE)


@pytest.mark.parametrize("container_path", ["/etc", "/mnt/user-data", "mnt/acp-workspace", "/mnt/skills/custom/..", ""])
def test_another_container_path_is_refused(container_path: str) -> None:
    with pytest.raises(BadRequest):
        checked_mounts([mount(f"{BASE}/a", container_path)], BASE)


def test_the_same_container_path_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="twice"):
        checked_mounts([mount(f"{BASE}/a"), mount(f"{BASE}/b")], BASE)


def test_without_the_operators_base_they_are_refused() -> None:
    with pytest.raises(BadRequest, match="DEER_FLOW_HOST_BASE_DIR"):
        checked_mounts([mount(f"{BASE}/a")], None)


def test_below_the_root_everything_is_below_the_base() -> None:
    assert checked_mounts([mount("/a")], "/") == (mount("/a"),)
