"""Explains in one sentence why a Pod is not ready and how to fix it, from a table by reason. Pure.

The response also carries Kubernetes' own message, so the sentence does not repeat it.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.status.causes import PROBE_FAILED
from sandboxes.status.reasons import has_ended, last_termination

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.status.reasons import Trouble

_PULL = (
    "the image {image} can't be pulled: check its name and tag, and that the node reaches the registry and may pull "
    "from it"
)
_CANT_RUN = "container {container} can't be run: check that the command and the paths of the image {image} exist"
_MOUNT = (
    "a volume can't be mounted: check that the source named in the Event exists, for a hostPath on the Pod's own node"
)
_WAIT = "wait a moment and look again; if this persists, look at the events"
_LOST = "node {node} does not answer: if this persists, delete the sandbox and create it again, elsewhere"
_PREEMPTED = "another Pod took the sandbox's place on its node: create it again, and give it a higher priority"
_REMOVED = "the cluster removed the sandbox from node {node}: create it again, on a node that stays"

# By reason. {container}, {image}, {exit_code} and {memory} are the failing container's, else the sandbox container's.
SUMMARIES = {
    # Scheduling and node failures
    "Pending": f"the Pod has not started yet: {_WAIT}",
    "Unschedulable": "no node can take the sandbox: add or free capacity, or ask for less, and check that a node fits "
    "the template's node selector and tolerations",
    "FailedScheduling": "no node has been found for the sandbox: add or free capacity, or ask for less",
    "SchedulingGated": "a scheduling gate holds the Pod back: ask its owner to remove the gate",
    "NodeLost": _LOST,
    "NodeNotReady": _LOST,
    "DeletionByTaintManager": _REMOVED,
    "EvictionByEvictionAPI": _REMOVED,
    "DeletionByPodGC": _REMOVED,
    "TerminationByKubelet": _REMOVED,
    "Terminated": _REMOVED,  # by a node shutdown
    "NodeShutdown": _REMOVED,
    "PreemptionByScheduler": _PREEMPTED,
    "Preempting": _PREEMPTED,
    "Preempted": _PREEMPTED,
    "TaintManagerEviction": _REMOVED,
    "Evicted": "node {node} ran short of a resource and evicted the sandbox: create it again, and request what it "
    "really needs",
    "DeadlineExceeded": "the sandbox has exceeded its activeDeadlineSeconds: create it again",
    # Before the containers start
    "FailedMount": _MOUNT,
    "FailedMapVolume": _MOUNT,
    "FailedAttachVolume": "a volume can't be attached to node {node}: check its claim, and that no other node holds it",
    "FailedCreatePodSandBox": "node {node} can't set up the Pod's network: check the network plugin of the node",
    "NetworkNotReady": "node {node} has no network for Pods yet: check the network plugin of the node",
    "ContainerCreating": f"the sandbox is still being made, volumes or image included: {_WAIT}",
    "FailedKillPod": "node {node} can't stop what runs of the sandbox: if this persists, delete the sandbox and create "
    "it again",
    "PodInitializing": "an init container is still running: wait a moment and look again",
    # Image
    "ErrImagePull": _PULL,
    "ImagePullBackOff": _PULL,
    "RegistryUnavailable": _PULL,
    "InvalidImageName": "the image name {image} is not valid: correct it",
    "ErrImageNeverPull": "the image {image} is not on node {node}, and imagePullPolicy Never forbids pulling it: load "
    "it there, or change the policy",
    # Containers
    "CreateContainerConfigError": "container {container} can't be configured: add the ConfigMap, Secret or user that "
    "the message names, or correct the template",
    "CreateContainerError": _CANT_RUN,
    "FailedCreatePodContainer": _CANT_RUN,
    "RunContainerError": _CANT_RUN,
    "StartError": _CANT_RUN,
    "ContainerCannotRun": _CANT_RUN,
    "OOMKilled": "container {container} used up its memory of {memory} and was killed: give it more, or let it do less "
    "at a time",
    "CrashLoopBackOff": "container {container} keeps exiting, last with exit code {exit_code}: its last lines are in "
    "previous_logs; correct its image or its settings",
    "Error": "container {container} ended with exit code {exit_code}: its last lines are in logs or previous_logs; "
    "correct its image or its settings",
    "Completed": "container {container} ended by itself, with exit code {exit_code}: a sandbox's server must keep "
    "running; correct its image or its settings",
    "FailedPostStartHook": "container {container} was stopped because its postStart hook failed: correct the hook or "
    "the image {image}",
    # The server in the sandbox container
    "ReadinessGatesNotReady": "the containers are ready, but a readiness gate of the Pod is not: check the controller "
    "that sets the condition named in the message",
    "NotReady": "the containers run, but a probe does not pass yet: if this persists, look at the logs and check that "
    "the server answers on the probe's port and path",
    "Unhealthy": "the containers run, but a probe fails: look at the logs and check that the server answers on the "
    "probe's port and path",
}

_AGAIN = "create it again, and give it more, or let it write less"

# Sentences that say more than the reason's own: the reasons and messages that they are for. A message's named groups
# are the sentence's words. A container's own message may read like any, so the kubelet's have their reason beside them.
_BY_MESSAGE: tuple[tuple[frozenset[str] | None, re.Pattern[str], str], ...] = (
    # What can't be mounted (record: pod-nested-mount-read-only, events-failed-mount).
    (
        None,
        re.compile(r'to rootfs at "(?P<path>/[^"]*)".*: read-only file system', re.DOTALL),
        (
            "container {container} can't be run: the mount point {path} can't be made in {parent}, which is read-only: "
            "make the directory in the source of that mount, or mount neither read-only nor below it"
        ),
    ),
    (
        None,
        re.compile(r"hostPath type check failed: (?P<path>/.*) is not a directory", re.DOTALL),
        (
            "a volume can't be mounted: {path} is not a directory on node {node}: make it there, or correct the path "
            "of the mount"
        ),
    ),
    # Evictions for what the Pod itself used (record: pod-evicted-*; pkg/kubelet/eviction).
    (
        frozenset({"Evicted"}),
        re.compile(r"Pod ephemeral local storage usage exceeds the total limit of containers (?P<limit>[^ ]+?)\. *"),
        f"the sandbox used more disk than its limit of ephemeral-storage allows, which is {{limit}}: {_AGAIN}",
    ),
    (
        frozenset({"Evicted"}),
        re.compile(r'Container (?P<container>\S+) exceeded its local ephemeral storage limit "(?P<limit>[^"]*)"'),
        "container {container} used more disk than its limit of ephemeral-storage allows, which is {limit}: " + _AGAIN,
    ),
    (
        frozenset({"Evicted"}),
        re.compile(r'Usage of EmptyDir volume "(?P<volume>[^"]*)" exceeds the limit "(?P<limit>[^"]*)"'),
        "the sandbox used more {medium} than the size limit of its volume {volume} allows, which is {limit}: " + _AGAIN,
    ),
    # A container that the kubelet stopped to start it again.
    (
        frozenset({"Unhealthy"}),
        PROBE_FAILED,
        (
            "container {container} was stopped because its {probe} probe failed: look at the logs and check that it "
            "answers on the probe's port and path, in the time that the probe allows"
        ),
    ),
)

# Sentences about one container that the sandbox waits for; the reason's own are about the Pod.
_INIT = (
    "the init container {container} has not finished yet: wait a moment and look again; if this persists, check what "
    "it waits for"
)
_SIDECAR = (
    "the sidecar {container} runs, but is not ready, so the sandbox is not ready: if this persists, check that it "
    "answers on its probe's port and path"
)

# Added for an ended Pod, which only a create replaces, unless the sentence mentions a create already.
_ENDED = "the same create again replaces it"
_UNKNOWN = "the sandbox is not ready ({reason}): message, events and logs say more"
_NO_SERVICE = "its Service is missing or has no port: the same create again completes it"


def summary_of(pod: KubeObject, trouble: Trouble | None, *, has_url: bool) -> str:
    """Return the sentence for a Pod; `trouble` is None for a ready one, `has_url` false without a usable Service."""
    if trouble is not None:
        sentence = _sentence_for(pod, trouble)
        if has_ended(pod) and "create" not in sentence:
            sentence += f"; {_ENDED}"
    elif has_url:
        sentence = f"nothing is wrong: the sandbox is ready{_after_restarts(pod)}"
    else:
        sentence = "the sandbox's Pod is ready"
    if not has_url:
        sentence += f", but {_NO_SERVICE}" if trouble is None else f"; {_NO_SERVICE}"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _sentence_for(pod: KubeObject, trouble: Trouble) -> str:
    """Return the sentence for a Pod that is not ready."""
    words: dict[str, object] = {}
    template = _template_for(pod, trouble)
    for reasons, pattern, sentence in _BY_MESSAGE:
        found = pattern.search(trouble.message or "")
        if found is not None and (reasons is None or trouble.reason in reasons):
            template, words = sentence, {**found.groupdict()}
            break
    return template.format(**{**_words(pod, trouble, words), **words})


def _template_for(pod: KubeObject, trouble: Trouble) -> str:
    """Return the sentence of the reason, with its placeholders; one that names the container goes first."""
    inits = {one["name"] for one in pod["spec"].get("initContainers") or []}
    if trouble.reason == "PodInitializing" and trouble.container in inits:
        return _INIT
    if trouble.reason in ("NotReady", "Unhealthy") and trouble.container not in (None, kube.CONTAINER):
        return _SIDECAR
    return SUMMARIES.get(trouble.reason, _UNKNOWN)


def _words(pod: KubeObject, trouble: Trouble, said: dict[str, object]) -> dict[str, object]:
    """Return the values of a sentence's placeholders; `said`: those that the message gives."""
    specs = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    name = trouble.container or kube.CONTAINER
    spec: KubeObject = next((one for one in specs if one["name"] == name), {})
    limits = (spec.get("resources") or {}).get("limits") or {}
    return {
        "parent": _mount_around(spec, str(said.get("path", ""))),
        "medium": _medium_of(pod, said.get("volume")),
        "reason": trouble.reason,
        "container": name,
        "image": spec.get("image", "of it"),
        "exit_code": "unknown" if trouble.exit_code is None else trouble.exit_code,
        "memory": limits.get("memory", "the whole node"),
        "node": pod["spec"].get("nodeName") or "unknown",
    }


def _medium_of(pod: KubeObject, volume: object) -> str:
    """Return what an emptyDir volume uses up."""
    sources = (one.get("emptyDir") or {} for one in pod["spec"].get("volumes") or [] if one["name"] == volume)
    return "disk" if next(sources, {}).get("medium", "") == "" else "memory"


def _mount_around(container: KubeObject, path: str) -> str:
    """Return the innermost mount path of the container that `path` is below."""
    mounts = {posixpath.normpath(mount["mountPath"]) for mount in container.get("volumeMounts") or []}
    return max((one for one in mounts if path.startswith(f"{one.rstrip('/')}/")), key=len, default="the image")


def _after_restarts(pod: KubeObject) -> str:
    """Return the suffix for a restarted sandbox: the reason of the last restart is likely to recur."""
    restarts = kube.sandbox_container_status(pod).get("restartCount", 0)
    if not restarts:
        return ""
    reason = (last_termination(pod) or {}).get("reason") or "an unknown reason"
    return f" again, after {restarts} restart{'s' if restarts > 1 else ''}, the last for {reason}"
