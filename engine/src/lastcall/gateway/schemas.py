"""What SQL functions take and give, as JSON Schema (2020-12, as OpenAPI 3.1 uses it)."""

from __future__ import annotations

from typing import Any, Final

from lastcall.postgres.signature import Parameter, Result, Signature

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string", "pattern": "^[^\\u0000]*$"}
_SCALARS: Final[dict[str, Schema]] = {
    "smallint": {"type": "integer", "minimum": -(2**15), "maximum": 2**15 - 1},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "real": {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38},
    "double precision": {"type": "number"},
    "date": {"type": "string", "format": "date"},
    "time without time zone": {"type": "string", "format": "time"},
    "timestamp without time zone": {"type": "string", "format": "date-time"},
    "timestamp with time zone": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
    "text": _TEXT,
    "character varying": _TEXT,
    "character": _TEXT,
    "name": _TEXT,
}
"""By the name of the type below all domains, as `format_type` writes it."""

_DIGITS: Final[dict[str, list[Schema]]] = {
    "bigint": [
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "string", "pattern": "^-?[0-9]{1,18}$"},
    ],
    "numeric": [{"type": "number"}, {"type": "string", "pattern": "^-?[0-9]{1,100}(\\.[0-9]{1,100})?$"}],
}
"""Taken as a number, or as its digits, of which JavaScript keeps 15."""

_FORMS: Final[dict[str, Schema]] = {
    "json": {},
    "boolean": {"type": "boolean"},
    "array": {"type": "array", "items": {}},
    "composite": {"type": "object"},
}
_ANSWERED: Final[dict[str, Schema]] = {
    "integer": {"type": "integer"},
    "bigint": {"type": "integer"},
    # NaN and the infinities are text.
    "number": {"type": ["number", "string"]},
}


def argument(parameter: Parameter) -> Schema:
    """The schema of one argument; JSON null is SQL's NULL."""
    schema = _value(parameter.form, parameter.base, given=True)
    described = {"description": f"{parameter.type}, optional" if parameter.optional else parameter.type}
    return described | (schema if parameter.form == "json" else _nullable(schema))


def arguments(signature: Signature) -> Schema:
    """The schema of a call's body."""
    schema: Schema = {
        "type": "object",
        "properties": {parameter.name: argument(parameter) for parameter in signature.parameters},
        "additionalProperties": False,
    }
    required = [parameter.name for parameter in signature.parameters if not parameter.optional]
    if required:
        schema["required"] = required
    return schema


def result(signature: Signature) -> Schema:
    """The schema of what a call answers."""
    returns = signature.returns
    if returns.type == "void":
        return {"type": "null"}
    if signature.set:
        rows = {"type": "object"} if signature.outputs else _nullable(_result(returns))
        return {"type": "array", "items": rows, "description": f"rows of {returns.type}"}
    return {"description": returns.type} | _nullable(_result(returns))


def _result(returns: Result) -> Schema:
    if returns.type == "record":
        return {"type": "object"}
    return _value(returns.form, returns.base, given=False)


def _value(form: str, base: str, *, given: bool) -> Schema:
    if form in _FORMS:
        return _FORMS[form]
    if not given:
        return _ANSWERED.get(form) or {"type": "string"}
    return {"anyOf": _DIGITS[base]} if base in _DIGITS else _SCALARS.get(base, {"type": "string"})


def _nullable(schema: Schema) -> Schema:
    if not schema or schema == {"type": "null"}:
        return schema
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return schema | {"type": [*schema["type"], "null"]}
