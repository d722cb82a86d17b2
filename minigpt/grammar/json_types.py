"""What the words of a JSON schema are about: types, their keywords, places in the document."""

from collections.abc import Mapping

BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
KEYWORDS = {  # which keywords speak about which type
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "number": BOUNDS,
    "integer": BOUNDS,
    "boolean": frozenset(),
    "null": frozenset(),
}
SILENT = frozenset({  # describe, or hold schemas that others refer to
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "$comment", "$defs", "definitions",
})  # fmt: skip


def types_of(schema: Mapping) -> list[str] | None:
    """The types that a schema allows; where it does not say, those that its keywords speak about; None for any.

    (By the letter, keywords say nothing about values of other types. Nobody who writes `properties` means this.)
    """
    if "type" in schema:
        types = schema["type"]
        return list(types) if isinstance(types, list | tuple) else [types]
    return [name for name, keywords in KEYWORDS.items() if name != "integer" and keywords & set(schema)] or None


def has_type(value: object, name: str) -> bool:
    """Is a value, as `json.loads` gives it, of this JSON type? (True is no number, and 1.0 is an integer.)"""
    if isinstance(value, bool) or value is None:
        return name == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return name == "number" or (name == "integer" and (isinstance(value, int) or value.is_integer()))
    kinds = {"string": str, "array": list, "object": dict}
    return name in kinds and isinstance(value, kinds[name])


def resolved(document: object, pointer: object) -> object:
    """What stands at a JSON pointer such as #/$defs/node. Raises: ValueError if nothing does."""
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        raise ValueError(f"$ref {pointer!r} is not supported: refer to a place in this document, as #/$defs/node")
    at = document
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and step.isdecimal() and int(step) < len(at):
            at = at[int(step)]
        elif isinstance(at, Mapping) and step in at:
            at = at[step]
        else:
            raise ValueError(f"$ref {pointer} leads nowhere: there is no {step!r}")
    return at
