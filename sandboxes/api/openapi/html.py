"""Renders the OpenAPI document as one HTML page, which loads nothing and so works offline. Pure.

Supports only the forms that `document.py` generates. Redoc and Swagger UI were considered: 1 to 1.5 MB of scripts
each, for a dozen routes.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Document: TypeAlias = "dict[str, Any]"

STYLE = """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid #8886; padding-top: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #8881; padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8883; }
summary { cursor: pointer; }
"""

_NULL = {"type": "null"}
# Keywords of a schema that are printed as "name value" after its type.
_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "maxItems", "maxProperties", "pattern")


def page(document: Document) -> str:
    """Render a document that `document.py` built."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta name="viewport" content="width=device-width">\n',
            f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n",
            *(f"<p>{_marked(paragraph)}</p>\n" for paragraph in info["description"].split("\n\n")),
            '<p>For programs: <a href="openapi.json">openapi.json</a></p>\n',
            *_contents(document),
            *_operations(document),
            *_failures(document),
            *_schemas(document),
            "</body>\n</html>\n",
        ]
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _marked(sentence: str) -> str:
    """Return the sentence as HTML, with text in back-ticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", _text(sentence))


def _example(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{_text(text)}</pre>\n"


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _each(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _contents(document: Document) -> Iterator[str]:
    yield "<table>\n"
    for method, path, operation in _each(document):
        link = f'<a href="#{_text(operation["operationId"])}"><code>{method} {_text(path)}</code></a>'
        yield f"<tr><td>{link}</td><td>{_marked(operation['summary'])}</td></tr>\n"
    yield "</table>\n"


def _operations(document: Document) -> Iterator[str]:
    for method, path, operation in _each(document):
        yield f'<h2 id="{_text(operation["operationId"])}"><code>{method} {_text(path)}</code></h2>\n'
        yield f"<p><strong>{_marked(operation['summary'])}.</strong> {_marked(operation['description'])}</p>\n"
        yield from _parameters(operation)
        if "requestBody" in operation:
            yield "<h3>Request</h3>\n"
            yield from _contents_of(operation["requestBody"]["content"])
        for status, response in operation["responses"].items():
            if "$ref" not in response:
                yield f"<h3>{_text(status)} {_marked(response['description'])}</h3>\n"
                yield from _contents_of(response.get("content", {}))
        failures = [
            f'<a href="#{_name(response["$ref"])}">{_text(status)}</a>'
            for status, response in operation["responses"].items()
            if "$ref" in response
        ]
        if failures:
            yield f"<p>Errors: {', '.join(failures)}</p>\n"


def _parameters(operation: Document) -> Iterator[str]:
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<h3>Parameters</h3>\n<table>\n"
        for parameter in parameters:
            yield (
                f"<tr><td><code>{_text(parameter['name'])}</code></td><td>{_text(parameter['in'])}</td>"
                f"<td>{_type(parameter['schema'])}</td><td>{_marked(parameter['description'])}</td></tr>\n"
            )
        yield "</table>\n"


def _contents_of(content: Document) -> Iterator[str]:
    for media_type, body in content.items():
        yield f"<p><code>{_text(media_type)}</code>: {_type(body['schema'])}</p>\n"
        yield _example(body["example"])


def _failures(document: Document) -> Iterator[str]:
    yield "<h2>Errors</h2>\n"
    status_of = {
        _name(response["$ref"]): status
        for _, _, operation in _each(document)
        for status, response in operation["responses"].items()
        if "$ref" in response
    }
    for name, response in document["components"]["responses"].items():
        status = f"{status_of[name]} " if name in status_of else ""
        yield f'<h3 id="{_text(name)}">{_text(status)}{_text(name)}</h3>\n<p>{_marked(response["description"])}</p>\n'
        headers = ", ".join(f"<code>{_text(header)}</code>" for header in response["headers"])
        yield f"<p>Headers: {headers}</p>\n"
        yield from _contents_of(response["content"])


def _schemas(document: Document) -> Iterator[str]:
    yield "<h2>Fields</h2>\n"
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="{_text(name)}">{_text(name)}</h3>\n<p>{_marked(schema["description"])}</p>\n<table>\n'
        for field, of_field in schema["properties"].items():
            required = "required" if field in schema.get("required", ()) else _default(of_field)
            yield (
                f"<tr><td><code>{_text(field)}</code></td><td>{_type(of_field)}</td><td>{required}</td>"
                f"<td>{_marked(of_field.get('description', ''))}</td></tr>\n"
            )
        yield "</table>\n"


def _default(schema: Document) -> str:
    return f"default <code>{_text(json.dumps(schema['default']))}</code>" if "default" in schema else "optional"


def _type(schema: Document) -> str:
    """Return the type and bounds of a schema in a few words, with links to named schemas."""
    if "$ref" in schema:
        name = _text(_name(schema["$ref"]))
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        types = [_type(choice) for choice in schema["anyOf"] if choice != _NULL]
        return " or ".join([*types, "null"] if _NULL in schema["anyOf"] else types)
    if "const" in schema:
        return f"<code>{_text(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{_text(value)}</code>" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array" and "items" in schema:
        kind = f"list of {_type(schema['items'])}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_type(schema['additionalProperties'])}"
    bounds = [f"{bound} <code>{_text(schema[bound])}</code>" for bound in _BOUNDS if bound in schema]
    return ", ".join([kind, *bounds])
