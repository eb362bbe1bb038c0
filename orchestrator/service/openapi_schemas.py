"""JSON schemas for the OpenAPI document: an image template as one api-version has it, and ARM's error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.template.schema.tables import Field, Tables, Variant, tables

ERROR: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "target": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
                "additionalInfo": {"type": "array", "items": {"type": "object"}},
            },
        },
        "code": {"type": "string"},
        "message": {"type": "string"},
    },
    "anyOf": [{"required": ["error"]}, {"required": ["code", "message"]}],
}
"""With the envelope, and flat as the image builder's errors were before it."""

_NOT_SENT = frozenset({"type", "apiVersion", "name", "dependsOn", "comments", "metadata", "condition", "copy", "scope",
                       "existing"})  # fmt: skip
"""Of a resource in a deployment, not of a request's body."""
_SIMPLE: Mapping[str, Mapping[str, Any]] = {
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "ints": {"type": "array", "items": {"type": "integer"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "any": {},
}


def template_schemas(api_version: str) -> dict[str, Any]:
    """`ImageTemplate` and everything that it refers to."""
    known = tables()
    found: dict[str, Any] = {"ImageTemplate": _object(known.objects["resource"], api_version, skip=_NOT_SENT)}
    waiting = list(_references(found["ImageTemplate"]))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _named(known, name, api_version)
            waiting += _references(found[name])
    return found


def _named(known: Tables, name: str, api_version: str) -> dict[str, Any]:
    if name in known.variants:
        return _variant(known.variants[name], api_version)
    return _object(known.objects[name], api_version)


def _variant(variant: Variant, api_version: str) -> dict[str, Any]:
    types = [type_ for type_ in variant.types.values() if type_.is_in(api_version)]
    forms = []
    for type_ in types:
        schema = _object(type_.fields, api_version)
        schema["properties"][variant.discriminator] = {"const": type_.spelling(api_version)}
        schema["required"] = sorted({*schema.get("required", ()), variant.discriminator})
        forms.append(schema)
    return {"oneOf": forms}


def _object(fields: Mapping[str, Field], api_version: str, *, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    shown = [
        field for name, field in fields.items()
        if name not in skip and field.is_in(api_version) and not field.alias and not field.renamed
    ]  # fmt: skip
    schema: dict[str, Any] = {"type": "object", "properties": {field.name: _field(field) for field in shown}}
    if required := [field.name for field in shown if field.is_required(api_version)]:
        schema["required"] = required
    return schema


def _field(field: Field) -> dict[str, Any]:
    kind, _, name = field.kind.partition(":")
    if kind in ("object", "variant"):
        return {"$ref": f"#/components/schemas/{name}"}
    if kind == "array":
        return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    schema = dict(_SIMPLE[kind])
    if field.enum:
        schema["enum"] = list(field.enum)
    if field.min is not None:
        schema["minimum"] = field.min
    if field.max is not None:
        schema["maximum"] = field.max
    if field.ro:
        schema["readOnly"] = True
    return schema


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            if key == "$ref":
                yield member.rpartition("/")[2]
            else:
                yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)
