"""oneOf: a value must satisfy exactly one of several schemas, so no two may be satisfied at once.

Whether two schemas can be is hard to say in general. Three reasons that they cannot are recognised, which
cover how oneOf is used: other types, other values, or a property both require for which it holds in turn.
"""

from collections.abc import Mapping
from itertools import combinations

from minigpt.grammar.json_types import has_type, resolved, types_of

DEEPEST = 16  # properties in properties, and references


def exclude_each_other(document: object, schemas: list) -> tuple[int, int] | None:
    """None if they do, as far as can be seen; otherwise the indices of two for which it cannot."""
    for (i, one), (j, other) in combinations(enumerate(schemas), 2):
        if not _apart(document, one, other, DEEPEST):
            return i, j
    return None


def _apart(document: object, one: object, other: object, depth: int) -> bool:
    """Can no value satisfy both? False where this is not seen."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping) or depth == 0:
        return False
    for this, that in ((one, other), (other, one)):
        if "$ref" in this:
            return _apart(document, resolved(document, this["$ref"]), that, depth - 1)
    for this, that in ((one, other), (other, one)):
        if (inner := _options(this)) is not None:
            return all(_apart(document, option, that, depth - 1) for option in inner)
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not any(value == another and isinstance(value, bool) == isinstance(another, bool)
                       for value in values for another in others)  # fmt: skip
    if values is not None or others is not None:
        types = types_of(other if others is None else one)
        return types is not None and not any(has_type(value, name) for value in values or others for name in types)
    return _types_apart(one, other) or _properties_apart(document, one, other, depth)


def _options(schema: Mapping) -> list | None:
    found = schema.get("anyOf", schema.get("oneOf"))
    return found if isinstance(found, list) else None


def _values(schema: Mapping) -> list | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types_apart(one: Mapping, other: Mapping) -> bool:
    these, those = types_of(one), types_of(other)
    if "type" not in one or "type" not in other:
        return False
    widened = {"integer" if name == "number" else name for name in these}
    return not widened & {"integer" if name == "number" else name for name in those}


def _properties_apart(document: object, one: Mapping, other: Mapping, depth: int) -> bool:
    if types_of(one) != ["object"] or types_of(other) != ["object"]:
        return False
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    these, those = one.get("properties", {}), other.get("properties", {})
    return any(_apart(document, these[name], those[name], depth - 1) for name in shared & set(these) & set(those))
