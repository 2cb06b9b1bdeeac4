"""extra_mounts: allowed directories of the node, and where they are mounted."""

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
def test_the_container_paths_are_those_of_the_contract(root: str) -> None:
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
def test_an_invalid_or_reserved_skills_path_is_rejected(path: str) -> None:
    with pytest.raises(BadRequest, match="skills_container_path"):
        checked_skills_path(path)


def test_with_another_skills_path_mounts_at_mnt_skills_are_rejected() -> None:
    """Otherwise they would show skills that an agent's policy hides."""
    with pytest.raises(BadRequest):
        checked_mounts([mount(f"{BASE}/a", "/mnt/skills/custom")], BASE, "/opt/skills")


def test_uploads_must_be_mounted_read_only() -> None:
    uploads = "/mnt/user-data/.upload-conversions"
    assert checked_mounts([mount(f"{BASE}/a", uploads, read_only=True)], BASE)
    with pytest.raises(BadRequest, match="read_only"):
        checked_mounts([mount(f"{BASE}/a", uploads)], BASE)


@pytest.mark.parametrize(
    "host_path", [f"{BASE}/locks", f"{BASE}/config", f"{BASE}/config/locks/x", f"{BASE}/config-locks"]
)
def test_a_mount_below_a_read_only_one_must_be_in_its_source(host_path: str) -> None:
    config = mount(f"{BASE}/config", f"{LARK}/config", read_only=True)
    with pytest.raises(BadRequest, match="below the read-only"):
        checked_mounts([mount(host_path, f"{LARK}/config/locks"), config], BASE)


def test_a_mount_below_a_writable_one_may_have_any_source() -> None:
    config, locks = mount(f"{BASE}/config", f"{LARK}/config"), mount(f"{BASE}/locks", f"{LARK}/config/locks")
    assert checked_mounts([locks, config], BASE) == (config, locks)


def test_paths_are_normalized_and_parents_come_first() -> None:
    locks = mount(f"{BASE}//u/./config/locks/", "/mnt/integrations/lark-cli/config/locks/")
    config = mount(f"{BASE}/u/x/../config", "/mnt/integrations/lark-cli/config", read_only=True)
    assert checked_mounts([locks, config], BASE) == (
        mount(f"{BASE}/u/config", "/mnt/integrations/lark-cli/config", read_only=True),
        mount(f"{BASE}/u/config/locks", "/mnt/integrations/lark-cli/config/locks"),
    )


def test_two_leading_slashes_are_normalized() -> None:
    assert checked_mounts([mount(f"/{BASE}/a")], BASE) == (mount(f"{BASE}/a"),)


def test_no_mounts_need_no_base_directory() -> None:
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
def test_a_host_path_outside_the_base_is_rejected(host_path: str) -> None:
    with pytest.raises(BadRequest):
        checked_mounts([mount(host_path)], BASE)


@pytest.mark.parametrize("container_path", ["/etc", "/mnt/user-data", "mnt/acp-workspace", "/mnt/skills/custom/..", ""])
def test_another_container_path_is_rejected(container_path: str) -> None:
    with pytest.raises(BadRequest):
        checked_mounts([mount(f"{BASE}/a", container_path)], BASE)


def test_duplicate_container_paths_are_rejected() -> None:
    with pytest.raises(BadRequest, match="twice"):
        checked_mounts([mount(f"{BASE}/a"), mount(f"{BASE}/b")], BASE)


def test_mounts_without_a_base_directory_are_rejected() -> None:
    with pytest.raises(BadRequest, match="DEER_FLOW_HOST_BASE_DIR"):
        checked_mounts([mount(f"{BASE}/a")], None)


def test_with_the_root_as_base_every_path_is_accepted() -> None:
    assert checked_mounts([mount("/a")], "/") == (mount("/a"),)
