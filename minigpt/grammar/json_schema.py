"""A JSON schema -> a grammar of the JSON texts that satisfy it.

    any type   type (one or several), enum, const, anyOf, oneOf, $ref within the document, also to itself
    object     properties, required, additionalProperties
    array      items, minItems, maxItems
    string     minLength, maxLength, or pattern (see regular_expression.py)
    integer    minimum, maximum, exclusiveMinimum, exclusiveMaximum
    number     the same, where the bounds are whole numbers

Every text of the grammar satisfies the schema; not every text that satisfies it is in the grammar. Properties
come in the schema's order. Where `properties` are listed no others are written, whatever additionalProperties
permits, as in OpenAI's strict mode; `{"type": "object"}` alone is any object, and additionalProperties alone
gives the values of an object with any names. How values are written: json_text.py.

What only describes (title, description, default, ...) is passed over. Any other keyword is refused by its name:
leaving it out would break the promise.

Source: JSON Schema 2020-12; Willard & Louf 2023, "Efficient Guided Generation for Large Language Models".
"""

import math
from collections.abc import Mapping

from minigpt.grammar.characters import in_json
from minigpt.grammar.json_oneof import exclude_each_other
from minigpt.grammar.json_text import (
    BOOLEAN,
    INTEGER_DIGITS,
    WHOLE_DIGITS,
    Bounds,
    any_members,
    any_value,
    array,
    integer,
    literal,
    members,
    number,
    quoted,
    string,
)
from minigpt.grammar.json_types import KEYWORDS, SILENT, has_type, resolved, types_of
from minigpt.grammar.nodes import Costs, Node, Rule, byte_length, either, rules_of
from minigpt.grammar.regular_expression import regular_expression

Schema = Mapping[str, object] | bool
ALONE = ("$ref", "const", "enum", "anyOf", "oneOf")  # say all there is to say; only `type` may stand beside a value
DEEPEST = 128  # lists and objects in each other, anywhere in the document


def json_schema(schema: Schema) -> Node:
    """The texts that satisfy `schema`.

    Raises: ValueError naming the keyword and its place (a JSON pointer such as #/properties/age), if it is not
            supported, malformed, or cannot be satisfied.
    """
    _check_nesting(schema)
    reader = _Reader(schema)
    start = reader.value(schema, "#")
    while reader.unread:
        rule = reader.unread.pop()
        rule.body = reader.value(resolved(schema, rule.name), rule.name)
    costs = Costs(start, byte_length)
    if costs.of(start) == math.inf:
        endless = [rule.name for rule in rules_of(start) if costs.of(rule) == math.inf]
        raise ValueError(f"JSON schema: {min(endless)} contains itself without end: give it a way out, as null")
    return start


class _Reader:
    def __init__(self, document: Schema) -> None:
        self.document = document
        self.rules: dict[str, Rule] = {}
        self.unread: list[Rule] = []
        self.anything = any_value()

    def value(self, schema: object, place: str) -> Node:
        """The values that `schema`, which stands at `place`, allows."""
        if schema is False:
            raise _refusal(place, "false is satisfied by nothing")
        if schema is True:
            return self.anything
        if not isinstance(schema, Mapping):
            raise _refusal(place, f"a schema is an object, true or false, not {schema!r}")
        if alone := [keyword for keyword in ALONE if keyword in schema]:
            return self.alone(alone[0], schema, place)
        types = types_of(schema)
        known = SILENT | {"type"}.union(*(KEYWORDS.get(one, ()) for one in types or ()))
        for keyword in schema:
            if keyword not in known:
                raise _refusal(place, _unknown(keyword, types))
        if types is None:
            return self.anything
        return either(*(self.typed(one, schema, place) for one in types)) if types else _no_type(place)

    def alone(self, keyword: str, schema: Mapping, place: str) -> Node:
        """A schema that is a reference, a choice of values or a choice of schemas."""
        beside = ("type",) if keyword in ("const", "enum") else ()
        for other in schema:
            if other not in {keyword, *beside, *SILENT}:
                raise _refusal(place, f"{other} beside {keyword} is not supported: write it inside, or leave it out")
        if keyword == "$ref":
            return self.reference(schema["$ref"], place)
        values = [schema["const"]] if keyword == "const" else schema[keyword]
        if not isinstance(values, list | tuple) or not values:
            raise _refusal(place, f"{keyword} needs a list with something in it, not {values!r}")
        if keyword in ("const", "enum"):
            return self.choice(keyword, values, schema, place)
        if keyword == "oneOf" and (pair := exclude_each_other(self.document, values)):
            raise _refusal(place, f"oneOf: one value may satisfy both {pair[0]} and {pair[1]}; if it may, write anyOf")
        return either(*(self.value(one, f"{place}/{keyword}/{i}") for i, one in enumerate(values)))

    def choice(self, keyword: str, values: list, schema: Mapping, place: str) -> Node:
        types = types_of({"type": schema["type"]}) if "type" in schema else None
        fitting = [value for value in values if types is None or any(has_type(value, one) for one in types)]
        if not fitting:
            raise _refusal(place, f"no value of {keyword} has the type {schema['type']!r}")
        try:
            return either(*map(literal, fitting))
        except (ValueError, TypeError) as error:
            raise _refusal(place, f"{keyword} holds what JSON cannot write: {error}") from None

    def reference(self, pointer: object, place: str) -> Node:
        """Read later, once: so that a schema may refer to itself."""
        try:
            resolved(self.document, pointer)
        except ValueError as error:
            raise _refusal(place, str(error)) from None
        if pointer not in self.rules:
            self.rules[pointer] = Rule(pointer)
            self.unread.append(self.rules[pointer])
        return self.rules[pointer]

    def typed(self, name: str, schema: Mapping, place: str) -> Node:
        match name:
            case "object":
                return self.object(schema, place)
            case "array":
                least, most = _counts(schema, "minItems", "maxItems", place)
                return array(self.value(schema.get("items", True), f"{place}/items"), least, most)
            case "string":
                return _string(schema, place)
            case "integer" | "number":
                return _number(name, schema, place)
            case "boolean":
                return BOOLEAN
            case "null":
                return b"null"
            case _:
                raise _refusal(place, f"type {name!r} is none of {', '.join(KEYWORDS)}")

    def object(self, schema: Mapping, place: str) -> Node:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", True)
        if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
            raise _refusal(place, "properties is an object, required a list of names")
        if missing := [name for name in required if name not in properties]:
            raise _refusal(place, f"required names {missing[0]!r}, which is not in properties: give it a schema there")
        if properties:
            if not isinstance(others, bool):
                raise _refusal(place, "additionalProperties beside properties can only be false: list them all")
            inner = {name: self.value(one, f"{place}/properties/{_escaped(name)}")
                     for name, one in properties.items()}  # fmt: skip
            return members([(name, one, name in required) for name, one in inner.items()])
        if others is False:
            return b"{}"
        return any_members(self.value(others, f"{place}/additionalProperties"))


def _check_nesting(schema: object) -> None:
    """Before anything recursive looks at it: Python's own limit would speak of the stack, not of the schema."""
    level, depth = [schema], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"JSON schema: nested more than {DEEPEST} deep: name inner schemas in $defs, $ref them")
        holders = [one.values() if isinstance(one, Mapping) else one
                   for one in level if isinstance(one, Mapping | list | tuple)]  # fmt: skip
        level, depth = [inner for holder in holders for inner in holder], depth + 1


def _string(schema: Mapping, place: str) -> Node:
    if "pattern" not in schema:
        return string(*_counts(schema, "minLength", "maxLength", place))
    for other in ("minLength", "maxLength"):
        if other in schema:
            raise _refusal(place, f"{other} beside pattern is not supported: write lengths into it, as in ^.{{1,9}}$")
    if not isinstance(schema["pattern"], str):
        raise _refusal(place, f"pattern is a string, not {schema['pattern']!r}")
    try:
        inside = regular_expression(schema["pattern"], anywhere=True, write=in_json)
    except ValueError as error:
        raise _refusal(place, f"pattern: {error}") from None
    if Costs(inside, byte_length).of(inside) == math.inf:
        raise _refusal(place, f"pattern {schema['pattern']!r} matches nothing")
    return quoted(inside)


def _number(name: str, schema: Mapping, place: str) -> Node:
    """Where two keywords bound the same side, the narrower counts."""
    low = max((_bound(name, schema, keyword, place), keyword.startswith("ex"))
              for keyword in ("minimum", "exclusiveMinimum"))  # fmt: skip
    high = min((_bound(name, schema, keyword, place), not keyword.startswith("ex"))
               for keyword in ("maximum", "exclusiveMaximum"))  # fmt: skip
    bounds = Bounds(
        low=None if low[0] == -math.inf else int(low[0]), low_open=low[1] and low[0] > -math.inf,
        high=None if high[0] == math.inf else int(high[0]), high_open=not high[1] and high[0] < math.inf,
    )  # fmt: skip
    if (node := (integer if name == "integer" else number)(bounds)) is None:
        raise _refusal(place, f"no {name} lies between these bounds: {bounds}")
    return node


def _bound(name: str, schema: Mapping, keyword: str, place: str) -> float:
    """A bound; without one, an infinite one."""
    upper = keyword.lower().endswith("maximum")
    value = schema.get(keyword, math.inf if upper else -math.inf)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise _refusal(place, f"{keyword} is a number, not {value!r}")
    if keyword not in schema:
        return value
    digits = INTEGER_DIGITS if name == "integer" else WHOLE_DIGITS
    if abs(value) >= 10**digits:
        raise _refusal(place, f"{keyword} {value} is not supported: it may have {digits} digits for type {name}")
    if value == int(value):
        return int(value)
    if name == "number":
        raise _refusal(place, f"{keyword} {value} is not supported: bounds of a number must be whole here")
    whole = math.floor(value) if upper else math.ceil(value)  # an integer cannot lie on it, open or not
    return whole + (keyword.startswith("ex") and (1 if upper else -1))


def _counts(schema: Mapping, least: str, most: str, place: str) -> tuple[int, int | None]:
    counts = schema.get(least, 0), schema.get(most)
    for keyword, count in zip((least, most), counts, strict=True):
        if keyword in schema and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise _refusal(place, f"{keyword} is a count from 0 up, not {count!r}")
    if counts[1] is not None and counts[0] > counts[1]:
        raise _refusal(place, f"{least} {counts[0]} is more than {most} {counts[1]}: nothing satisfies both")
    return counts


def _unknown(keyword: str, types: list[str] | None) -> str:
    if owners := [name for name, keywords in KEYWORDS.items() if keyword in keywords]:
        return f"{keyword} belongs to type {' or '.join(owners)}, but type is {' or '.join(types or ())}"
    supported = sorted({"type", *ALONE}.union(*KEYWORDS.values()))
    return f"{keyword} is not supported: it would not be kept. Supported are {', '.join(supported)}"


def _no_type(place: str) -> Node:
    raise _refusal(place, "type is an empty list: nothing satisfies it")


def _escaped(name: object) -> str:
    if not isinstance(name, str) or any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"JSON schema: the name of a property is a string of characters, not {name!r}")
    return name.replace("~", "~0").replace("/", "~1")


def _refusal(place: str, what: str) -> ValueError:
    return ValueError(f"JSON schema at {place}: {what}")
