"""extra_mounts: which directories of the node a caller may have, and where."""

from __future__ import annotations

import pytest

from sandboxes.errors import BadRequest
from sandboxes.models.requests import ExtraMount
from sandboxes.spec.mounts import checked_mounts, checked_skills_path, container_paths

BASE = "/srv/deer-flow"


def mount(host_path: str, container_path: str = "/mnt/acp-workspace", *, read_only: bool = False) -> ExtraMount:
    return ExtraMount(host_path=host_path, container_path=container_path, read_only=read_only)


LARK = "/mnt/integrations/lark-cli"
FIXED = {
    "/mnt/acp-workspace",
    "/mnt/user-data/.upload-conversions",
    f"{LARK}/config",
    f"{LARK}/config/locks",
    f"{LARK}/data",
    f"{LARK}/runtime",
}


@pytest.mark.parametrize("root", ["/mnt/skills", "/opt/skills"])
def test_the_container_paths_are_the_contract(root: str) -> None:
    assert container_paths(root) == FIXED | {f"{root}/{one}" for one in ("public", "custom", "legacy", "integrations")}


def test_the_skills_are_at_mnt_skills_by_default() -> None:
    assert checked_skills_path(None) == "/mnt/skills"


@pytest.mark.parametrize("path", ["/opt/skills", "//opt//skills/", "/opt/./skills"])
def test_the_skills_path_is_normalized(path: str) -> None:
    assert checked_skills_path(path) == "/opt/skills"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "skills",
        "/",
        "//",
        "/mnt",
        "/mnt/user-data",
        "/mnt/user-data/",
        "/mnt/user-data/skills",
        "/mnt/acp-workspace",
        "/mnt/acp-workspace/x",
        "/mnt/integrations",
        LARK,
        f"{LARK}/skills",
        "/mnt/skills/..",
        "/mnt/x/../skills",
        "/mnt/sk:lls",
        "/mnt/skills\n",
        "/mnt/skills\0",
        "/proc/skills",
        "/sys",
        "/dev/shm",
        "/" + "a" * 4096,
    ],
)
def test_a_skills_path_that_is_relative_reserved_or_odd_is_refused(path: str) -> None:
    with pytest.raises(BadRequest, match="skills_container_path"):
        checked_skills_path(path)


def test_with_the_skills_elsewhere_no_mount_may_be_at_mnt_skills() -> None:
    """Else it would show skills that an agent's policy hides."""
    with pytest.raises(BadRequest):
        checked_mounts([mount(f"{BASE}/a", "/mnt/skills/custom")], BASE, "/opt/skills")


def test_uploads_may_be_mounted_read_only_and_not_else() -> None:
    uploads = "/mnt/user-data/.upload-conversions"
    assert checked_mounts([mount(f"{BASE}/a", uploads, read_only=True)], BASE)
    with pytest.raises(BadRequest, match="read_only"):
        checked_mounts([mount(f"{BASE}/a", uploads)], BASE)


@pytest.mark.parametrize(
    "host_path", [f"{BASE}/locks", f"{BASE}/config", f"{BASE}/config/locks/x", f"{BASE}/config-locks"]
)
def test_a_mount_that_a_read_only_parent_does_not_contain_is_refused(host_path: str) -> None:
    config = mount(f"{BASE}/config", f"{LARK}/config", read_only=True)
    with pytest.raises(BadRequest, match="below the read-only"):
        checked_mounts([mount(host_path, f"{LARK}/config/locks"), config], BASE)


def test_below_a_writable_parent_any_source_may_be_mounted() -> None:
    config, locks = mount(f"{BASE}/config", f"{LARK}/config"), mount(f"{BASE}/locks", f"{LARK}/config/locks")
    assert checked_mounts([locks, config], BASE) == (config, locks)


def test_paths_are_normalised_and_parents_come_first() -> None:
    locks = mount(f"{BASE}//u/./config/locks/", "/mnt/integrations/lark-cli/config/locks/")
    config = mount(f"{BASE}/u/x/../config", "/mnt/integrations/lark-cli/config", read_only=True)
    assert checked_mounts([locks, config], BASE) == (
        mount(f"{BASE}/u/config", "/mnt/integrations/lark-cli/config", read_only=True),
        mount(f"{BASE}/u/config/locks", "/mnt/integrations/lark-cli/config/locks"),
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
