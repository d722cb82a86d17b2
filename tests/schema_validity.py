"""Does a value satisfy a JSON schema? Written from the specification, for tests of what is generated.

The plainest words there are, for the keywords that minigpt.grammar.json_schema supports; raises for any other.
"""

import re


def is_valid(value: object, schema: dict | bool, document: dict | bool | None = None) -> bool:
    document = schema if document is None else document
    if isinstance(schema, bool):
        return schema
    return all(_holds(keyword, asked, value, schema, document) for keyword, asked in schema.items())


def _holds(keyword: str, asked: object, value: object, schema: dict, document: object) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    match keyword:
        case "type":
            return any(_is(value, name) for name in ([asked] if isinstance(asked, str) else asked))
        case "enum":
            return any(_same(value, one) for one in asked)
        case "const":
            return _same(value, asked)
        case "anyOf":
            return any(is_valid(value, one, document) for one in asked)
        case "oneOf":
            return sum(is_valid(value, one, document) for one in asked) == 1
        case "$ref":
            at = document
            for step in asked.split("/")[1:]:
                at = at[step]
            return is_valid(value, at, document)
        case "properties":
            return not isinstance(value, dict) or all(
                is_valid(value[name], one, document) for name, one in asked.items() if name in value
            )
        case "required":
            return not isinstance(value, dict) or all(name in value for name in asked)
        case "additionalProperties":
            listed = schema.get("properties", {})
            return not isinstance(value, dict) or all(
                is_valid(one, asked, document) for name, one in value.items() if name not in listed
            )
        case "items":
            return not isinstance(value, list) or all(is_valid(one, asked, document) for one in value)
        case "minItems":
            return not isinstance(value, list) or len(value) >= asked
        case "maxItems":
            return not isinstance(value, list) or len(value) <= asked
        case "minLength":
            return not isinstance(value, str) or len(value) >= asked
        case "maxLength":
            return not isinstance(value, str) or len(value) <= asked
        case "pattern":
            return not isinstance(value, str) or bool(re.search(asked.replace("$", r"\Z"), value, re.ASCII))
        case "minimum":
            return not numeric or value >= asked
        case "maximum":
            return not numeric or value <= asked
        case "exclusiveMinimum":
            return not numeric or value > asked
        case "exclusiveMaximum":
            return not numeric or value < asked
        case "$defs" | "definitions" | "title" | "description" | "default":
            return True
    raise NotImplementedError(keyword)


def _is(value: object, name: str) -> bool:
    match name:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    raise NotImplementedError(name)


def _same(one: object, other: object) -> bool:
    """JSON's equality: 1 and 1.0 are the same, true and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return one == other
