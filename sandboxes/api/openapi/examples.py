"""One example for every body that crosses the REST boundary, for the document. Data only.

A test holds each to its schema.
"""

from __future__ import annotations

_SANDBOX = {
    "sandbox_id": "abc",
    "sandbox_url": "http://127.0.0.1:30817",
    "status": "Running",
    "ready": True,
    "reason": None,
    "message": None,
    "created_at": "2026-11-20T09:00:00Z",
    "expires_at": "2026-11-20T10:00:00Z",
    "thread_id": "t-1",
    "user_id": "u-1",
    "template": "default",
    "image": "sandbox:1",
    "node": "node-1",
}
_WAITED = {**_SANDBOX, "url_checked": True}
_WAITING = "Back-off restarting failed container"

# By the name of the operation: the body of its 200.
ANSWERS: dict[str, object] = {
    "create_sandbox": _WAITED,
    "list_sandboxes": {"sandboxes": [_SANDBOX], "count": 1, "next_cursor": "MTphYmM="},
    "get_sandbox": _SANDBOX,
    "delete_sandbox": {"ok": True, "sandbox_id": "abc"},
    "get_diagnostics": {
        "sandbox_id": "abc",
        "summary": "The container used up its memory (exit code 137): ask for more, or use less.",
        "status": "Failed",
        "ready": False,
        "reason": "OOMKilled",
        "message": _WAITING,
        "sandbox_url": "http://127.0.0.1:30817",
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "ContainersNotReady",
                "message": "containers with unready status: [sandbox]",
                "last_transition_time": "2026-11-20T09:00:02Z",
            }
        ],
        "containers": [
            {
                "name": "sandbox",
                "init": False,
                "image": "sandbox:1",
                "ready": False,
                "restart_count": 3,
                "state": {
                    "state": "waiting",
                    "reason": "CrashLoopBackOff",
                    "message": _WAITING,
                    "exit_code": None,
                    "started_at": None,
                    "finished_at": None,
                },
                "last_termination": {
                    "state": "terminated",
                    "reason": "OOMKilled",
                    "message": None,
                    "exit_code": 137,
                    "started_at": "2026-11-20T09:01:00Z",
                    "finished_at": "2026-11-20T09:01:09Z",
                },
            }
        ],
        "events": {
            "items": [
                {
                    "type": "Warning",
                    "reason": "BackOff",
                    "message": _WAITING,
                    "count": 4,
                    "first_timestamp": "2026-11-20T09:00:30Z",
                    "last_timestamp": "2026-11-20T09:01:10Z",
                }
            ],
            "error": None,
        },
        "logs": {"lines": [], "error": "The container has not started, so it has no log yet"},
        "previous_logs": {"lines": ["listening on :8080"], "error": None},
    },
    "renew_sandbox": _SANDBOX,
    "touch_sandbox": _SANDBOX,
    "stream_events": 'id: 1795341600000\nevent: state\ndata: {"sandboxes":[],"count":0}\n\n',
    "list_templates": {
        "templates": [
            {
                "name": "persistent",
                "description": "User data on a claim of the sandbox's own, which outlives it.",
                "image": "sandbox:1",
                "objects": ["PersistentVolumeClaim"],
            }
        ],
        "count": 1,
    },
    "get_capabilities": {
        "lark_cli_init_image": False,
        "lark_cli_broker_image": False,
        "extra_mounts": False,
        "fields": ["env", "labels", "ttl_seconds", "wait_seconds"],
    },
    "get_health": {"status": "ok"},
    "get_livez": {"status": "ok"},
    "get_readyz": {"ready": True, "checks": {"serving": "ok", "kubectl": "ok", "api_server": "ok", "live_view": "ok"}},
    "get_metrics": 'provisioner_sandboxes{status="Running"} 3.0\n',
    "get_openapi": {"openapi": "3.1.1", "info": {"title": "Sandbox provisioner", "version": "0.1.0"}, "paths": {}},
    "get_docs": "<!doctype html>…",
}

# By the name of the operation.
BODIES: dict[str, object] = {
    "create_sandbox": {
        "sandbox_id": "abc",
        "thread_id": "t-1",
        "user_id": "u-1",
        "env": {"LANG": "C.UTF-8"},
        "resources": {"limits": {"cpu": "2", "memory": "2Gi"}},
        "labels": {"team": "search"},
        "ttl_seconds": 3600,
        "wait_seconds": 20,
    },
    "renew_sandbox": {"ttl_seconds": 3600},
}

# By the parameter's name.
PARAMETERS: dict[str, object] = {
    "sandbox_id": "abc",
    "wait_seconds": 20,
    "status": "Running",
    "ready": True,
    "thread_id": "t-1",
    "user_id": "u-1",
    "template": "default",
    "label": ["team=search"],
    "limit": 100,
    "cursor": "MTphYmM=",
}

# By the name of the failure.
FAILURES: dict[str, object] = {
    "BadRequest": {"detail": "extra_mounts may have at most 10 entries"},
    "Unauthenticated": {"detail": "The X-API-Key header is missing or wrong"},
    "BrowserRefused": {
        "detail": "Without an API key a browser's request for a page of another origin is not answered (header Origin)"
    },
    "FieldNotAllowed": {"detail": "The operator does not allow a request to have: image"},
    "SandboxNotFound": {"detail": "Sandbox 'abc' not found", "status": "NotFound"},
    "RequestTimeout": {"detail": "Request Timeout"},
    "SandboxConflict": {"detail": "Sandbox 'abc' belongs to another thread or user"},
    "ContentTooLarge": {"detail": "The request's body is larger than 1 MiB"},
    "Unprocessable": {
        "detail": [
            {
                "type": "string_type",
                "loc": ["body", "sandbox_id"],
                "msg": "Input should be a valid string",
                "input": 5,
            }
        ]
    },
    "LimitReached": {"detail": "There are 100 sandboxes, and 100 is the most", "count": 100, "limit": 100},
    "ClusterRefused": {"detail": "The cluster refuses the provisioner's credentials"},
    "ClusterUnavailable": {"detail": "The cluster can't be reached"},
    "EventsUnavailable": {"detail": "The live view is not up to date just now"},
    "NotReady": {"ready": False, "checks": {"serving": "ok", "api_server": "The cluster can't be reached"}},
    "ClusterTimeout": {"detail": "The cluster did not answer in time"},
    "UnknownPath": {"detail": "Not Found"},
    "MethodNotAllowed": {"detail": "Method Not Allowed"},
    "InternalError": {"detail": "Internal error"},
}
