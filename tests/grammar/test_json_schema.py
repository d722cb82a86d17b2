"""JSON schemas as grammars: what is generated satisfies them, by `json.loads` and a validator of the test's own."""

import json
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from schema_validity import is_valid

from minigpt.grammar.automaton import Machine
from minigpt.grammar.json_schema import json_schema

NEXT = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
NODE = {"type": "object", "properties": {"value": {"type": "integer"}, "next": NEXT}, "required": ["value", "next"]}


def machine_of(schema: dict | bool) -> Machine:
    return Machine(json_schema(schema))


def accepts(machine: Machine, text: str) -> bool:
    state = machine.read(text.encode())
    return state is not None and state.accepting


def generated(machine: Machine, rng: random.Random, steps: int) -> str:
    """A random text, completed by the cheapest bytes after so many steps."""
    state, text = machine.start, b""
    while not state.final and not (state.accepting and rng.random() < 0.2):
        moves = sorted(machine.moves(state), key=lambda move: move[0])
        if len(text) >= steps:
            if state.accepting:
                break
            moves = [move for move in moves if move[1].cost < state.cost]
        mask, state = rng.choice(moves)
        text += bytes([rng.choice([byte for byte in range(256) if mask >> byte & 1])])
    return text.decode()


# --- random schemas ---------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "é", 'q"', "n/x~", "long name"])
small = st.integers(0, 3)


def between(low: str, high: str, numbers: st.SearchStrategy) -> st.SearchStrategy[dict]:
    pair = st.tuples(numbers, numbers).map(sorted)
    return st.one_of(st.just({}), numbers.map(lambda n: {low: n}), numbers.map(lambda n: {high: n}),
                     pair.map(lambda ends: {low: ends[0], high: ends[1]}))  # fmt: skip


def typed(name: str, *parts: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
    return st.tuples(*parts).map(lambda found: {"type": name} | {k: v for part in found for k, v in part.items()})


bounds = between("minimum", "maximum", st.integers(-120, 120))
open_bounds = st.integers(-99, 99).flatmap(
    lambda low: st.just({"exclusiveMinimum": low, "exclusiveMaximum": low + 2})
)
STRING = {"type": "string"}
scalars = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    typed("integer", st.one_of(bounds, open_bounds)),
    typed("number", st.one_of(bounds, open_bounds)),
    typed("string", between("minLength", "maxLength", small)),
    st.sampled_from(["^a+$", "é|x", r"^\d{2}:[^a]?$", '["\\\\]', r"\s"]).map(lambda p: {"pattern": p} | STRING),
    st.just({"type": ["string", "null"], "maxLength": 2}),
    st.sampled_from([{"const": {"k": [1, "é"]}}, {"enum": [None, True, 1.5, "x\n"]}, {"enum": ["a", 1]} | STRING]),
    st.sampled_from([True, {}, {"type": "object"}, {"type": "array"}, {"$ref": "#/$defs/tree"}]),
)


def objects(inner: st.SearchStrategy) -> st.SearchStrategy[dict]:
    properties = st.dictionaries(names, inner, min_size=1, max_size=4)
    return properties.flatmap(lambda found: st.sets(st.sampled_from(sorted(found))).map(
        lambda names: {"type": "object", "properties": found, "required": sorted(names), "additionalProperties": False}
    ))  # fmt: skip


def larger(inner: st.SearchStrategy) -> st.SearchStrategy[dict]:
    return st.one_of(
        objects(inner),
        typed("array", inner.map(lambda one: {"items": one}), between("minItems", "maxItems", small)),
        inner.map(lambda one: {"type": "object", "additionalProperties": one}),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: {"anyOf": found}),
    )


TREE = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "integer"}]}, "maxItems": 2}
schemas = st.recursive(scalars, larger, max_leaves=6).map(
    lambda one: one if isinstance(one, bool) else one | {"$defs": {"tree": TREE}, "title": "any"}
)


@given(schemas, st.integers(0, 80), st.integers(0, 999))
def test_whatever_is_generated_is_json_that_satisfies_the_schema(schema, steps, seed):
    """The one promise of this file."""
    text = generated(machine_of(schema), random.Random(seed), steps)
    assert is_valid(json.loads(text), schema), text


@given(schemas, st.integers(0, 60), st.integers(0, 999), st.integers(0, 59), st.sampled_from('"{}[],:0a-.\\ '))
def test_a_damaged_text_is_refused_or_still_satisfies_the_schema(schema, steps, seed, place, instead):
    """Random walks take frequent paths; a letter exchanged in them finds the others."""
    machine = machine_of(schema)
    text = generated(machine, random.Random(seed), steps)
    place %= len(text)
    text = text[:place] + instead + text[place + 1 :]
    if accepts(machine, text):
        assert is_valid(json.loads(text), schema)


# --- what is in the grammar -------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**17), 10**17), st.text(max_size=4),
              st.floats(-1e9, 1e9).map(lambda x: round(x, 5))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


@given(values, st.sampled_from([(", ", ": "), (",", ":"), (", ", ":")]))
def test_any_value_is_accepted_as_json_dumps_writes_it(value, separators):
    """With and without a space after commas and colons; characters as themselves."""
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    assert accepts(machine_of(True), text)
    assert accepts(machine_of({"type": "object"}), text) == isinstance(value, dict)
    assert accepts(machine_of({"const": value}), text)


@pytest.mark.parametrize("damaged", ["", "[1,]", "{,}", '{"a"}', "01", "1.", ".5", "+1", "- 1", "nul", "NaN", "[1  ,2]",
                                     '"\n"', '"\\x"', '"', "[[]", '{"a":1,}', "{1:2}", "1 ", " 1", "[ 1]"])  # fmt: skip
def test_any_value_is_no_more_than_json(damaged):
    """Trailing commas, leading zeros, bare words, more space than one."""
    assert not accepts(machine_of(True), damaged)


def test_properties_come_in_order_and_those_not_required_may_be_missing():
    """All 2 x 2 combinations, and no comma too many."""
    machine = machine_of({
        "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"],
    })  # fmt: skip
    for good in ('{"b": 2}', '{"a":1,"b":2}', '{"b": 2,"c": 3}', '{"a": 1, "b": 2, "c": 3}'):
        assert accepts(machine, good)
    for bad in ("{}", '{"a": 1}', '{"c": 3, "b": 2}', '{"b": 2, }', '{, "b": 2}', '{"b": 2, "b": 2}',
                '{"b": 2, "d": 4}', '{"b": 2 "c": 3}', '{"a": 1"b": 2}'):  # fmt: skip
        assert not accepts(machine, bad)
    assert accepts(machine_of({"properties": {"a": {}}}), "{}")


def test_values_are_of_the_type_that_stands_beside_them():
    """By JSON's types: 1.0 is an integer, true is no number; and an object without names is an empty one."""
    machine = machine_of({"type": ["integer", "null"], "enum": [1.0, 2.5, True, None, "1", float("inf")]})
    assert [text for text in ("1.0", "2.5", "true", "null", '"1"') if accepts(machine, text)] == ["1.0", "null"]
    closed = machine_of({"type": "object", "additionalProperties": False})
    assert accepts(closed, "{}") and not accepts(closed, '{"a": 1}')


BOUNDS = [None, -110, -100, -11, -10, -9, -1, 0, 1, 9, 10, 99, 105]
AT_EDGES = [edge + n / 2 for edge in (-110, -100, 0, 99, 105) for n in range(-24, 25)]


@pytest.mark.parametrize("low", BOUNDS)
@pytest.mark.parametrize("name", ["integer", "number"])
@pytest.mark.parametrize("sides", ["minimum maximum", "exclusiveMinimum exclusiveMaximum"])
def test_bounds_are_kept_to_the_last_number(name, low, sides):
    """Integers and halves around each bound, where a digit gets more or fewer; open and closed."""
    for high in BOUNDS:
        schema = {"type": name} | {
            side: bound for side, bound in zip(sides.split(), (low, high), strict=True) if bound is not None
        }
        texts = [json.dumps(int(n) if n == int(n) else n) for n in AT_EDGES]
        fitting = [text for text in texts if is_valid(json.loads(text), schema)]
        if fitting:
            machine = machine_of(schema)
            assert [text for text in texts if accepts(machine, text)] == fitting
        else:
            with pytest.raises(ValueError, match=f"no {name} lies between"):
                json_schema(schema)


def test_zero_has_no_sign_where_bounds_are_kept():
    """-0 would satisfy them; as text it is odd, and not every reader takes it for an integer."""
    for schema in ({"type": "integer"}, {"type": "integer", "maximum": 0}, {"type": "number", "maximum": 0}):
        assert accepts(machine_of(schema), "0") and not accepts(machine_of(schema), "-0")


def test_numbers_near_an_open_bound_do_not_round_onto_it():
    """15 digits are what a double keeps apart."""
    machine = machine_of({"type": "number", "exclusiveMinimum": 999_999_998, "exclusiveMaximum": 999_999_999})
    assert accepts(machine, "999999998.999999") and accepts(machine, "999999998.000001")
    assert not accepts(machine, "999999998.000000") and not accepts(machine, "999999999")
    assert not accepts(machine, "999999998.9999999")


def test_lengths_count_characters_and_patterns_see_them_unescaped():
    """Not bytes, and not the letters of an escape."""
    machine = machine_of({"type": "string", "minLength": 2, "maxLength": 2})
    for good in ("ab", "é漢", "😀😀", '"\\', "\n\x01"):
        assert accepts(machine, json.dumps(good, ensure_ascii=False))
    assert not accepts(machine, '"\\n"') and not accepts(machine, '"abc"')
    anywhere = machine_of({"type": "string", "pattern": "b"})
    assert accepts(anywhere, '"abc"') and accepts(anywhere, '"b"') and not accepts(anywhere, '"ac"')
    quote = machine_of({"type": "string", "pattern": '^[^a]"\\\\.$'})
    assert accepts(quote, json.dumps('\n"\\b')) and not accepts(quote, json.dumps('a"\\b'))


def test_a_schema_may_contain_itself():
    """A linked list, and a document that refers to its root."""
    machine = machine_of(NODE)
    assert accepts(machine, '{"value": 1, "next": {"value": 2, "next": null}}')
    assert not accepts(machine, '{"value": 1, "next": {"value": 2}}')
    assert accepts(machine_of({"type": "array", "items": {"$ref": "#"}}), "[[[], []], []]")


def test_references_follow_pointers_with_escapes():
    """~1 is a slash, ~0 a tilde."""
    inner = {"$defs": {"a/b~": {"$ref": "#/definitions/c"}}, "definitions": {"c": {"const": 1}}}
    assert accepts(machine_of({"$ref": "#/$defs/a~1b~0", **inner}), "1")


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "string"}, {"type": "integer"}, {"type": "null"}],
        [{"const": 1}, {"const": True}, {"enum": ["1", None]}],
        [{"const": "a"}, {"type": "number"}],
        [{"type": "object", "properties": {"kind": {"const": kind}, "x": {}}, "required": ["kind"]} for kind in "ab"],
        [{"$ref": "#/$defs/s"}, {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}],
    ],
)
def test_one_of_alternatives_that_exclude_each_other_is_any_of(options):
    """By type, by value, by a property that both require."""
    schema = {"oneOf": options, "$defs": {"s": {"type": "string"}}}
    machine = machine_of(schema)
    for seed in range(20):
        assert is_valid(json.loads(generated(machine, random.Random(seed), 30)), schema)


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "number"}, {"type": "integer"}],
        [{"type": "integer"}, {"type": "number"}],
        [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "null"}],
        [{"const": 1}, {"const": 1.0}],
        [{"const": "a"}, {"type": "string"}],
        [{}, {"type": "string"}],
        [{"type": "object", "properties": {"kind": {"const": kind}}} for kind in "ab"],
        [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}],
    ],
)
def test_one_of_alternatives_that_may_overlap_is_refused(options):
    """What satisfies two of them satisfies the whole not at all."""
    with pytest.raises(ValueError, match="may satisfy both 0 and 1; if it may, write anyOf"):
        json_schema({"oneOf": options})


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (False, "at #: false is satisfied by nothing"),
        ({"items": 3}, "at #/items: a schema is an object"),
        ({"type": "text"}, "type 'text' is none of object, array"),
        ({"type": []}, "type is an empty list"),
        ({"type": "string", "format": "date"}, "format is not supported: it would not be kept"),
        ({"allOf": [{}]}, "allOf is not supported"),
        ({"not": {}}, "not is not supported"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems is not supported"),
        ({"type": "number", "multipleOf": 2}, "multipleOf is not supported"),
        ({"type": "object", "patternProperties": {}}, "patternProperties is not supported"),
        ({"type": "object", "minProperties": 1}, "minProperties is not supported"),
        ({"type": "integer", "minLength": 1}, "minLength belongs to type string, but type is integer"),
        ({"properties": {"a/b": {"items": {"if": {}}}}}, "at #/properties/a~1b/items: if is not supported"),
        ({"properties": {"a": {}}, "required": ["b"]}, "required names 'b', which is not in properties"),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, "additionalProperties beside properties"),
        ({"properties": [1]}, "properties is an object, required a list"),
        ({"properties": {"\ud800": {}}}, "the name of a property"),
        ({"anyOf": [{}], "type": "string"}, "type beside anyOf is not supported"),
        ({"enum": ["a"], "maxLength": 1}, "maxLength beside enum"),
        ({"enum": []}, "enum needs a list"),
        ({"enum": 3}, "enum needs a list"),
        ({"enum": [1], "type": "string"}, "no value of enum has the type 'string'"),
        ({"const": float("nan")}, "const holds what JSON cannot write"),
        ({"const": "\ud800"}, "const holds what JSON cannot write"),
        ({"$ref": "http://x"}, "refer to a place in this document"),
        ({"$ref": "#/$defs/x"}, r"\$ref #/\$defs/x leads nowhere"),
        ({"$ref": 3}, r"\$ref 3 is not supported"),
        ({"$ref": []}, r"\$ref \[\] is not supported"),
        ({"$ref": "#"}, "# contains itself without end"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "# contains itself without end"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems 3 is more than maxItems 2"),
        ({"type": "array", "minItems": -1}, "minItems is a count from 0 up, not -1"),
        ({"type": "string", "maxLength": 1.5}, "maxLength is a count"),
        ({"type": "string", "maxLength": None}, "maxLength is a count"),
        ({"type": "string", "pattern": "(?=a)"}, "at #: pattern: regular expression .* position 0: lookahead"),
        ({"type": "string", "pattern": r"[^\s\S]"}, "matches nothing"),
        ({"type": "string", "pattern": 3}, "pattern is a string"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "maxLength beside pattern"),
        ({"type": "number", "minimum": 0.5}, "minimum 0.5 is not supported: bounds of a number must be whole"),
        ({"type": "integer", "minimum": 10**18}, "it may have 18 digits"),
        ({"type": "integer", "minimum": float("inf")}, "it may have 18 digits"),
        ({"type": "integer", "minimum": "1"}, "minimum is a number"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no integer lies between"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "no number lies between"),
    ],
)
def test_what_is_not_supported_or_cannot_be_satisfied_is_refused_by_name_and_place(schema, complaint):
    """Passing over a keyword would break the promise where nobody looks."""
    with pytest.raises(ValueError, match=complaint):
        json_schema(schema)


def nested(depth: int, inner: object, wrap) -> object:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


@pytest.mark.parametrize("wrap", [lambda one: {"items": one}, lambda one: {"const": one}, lambda one: {"anyOf": [one]},
                                  lambda one: {"properties": {"a": one}, "required": ["a"]},
                                  lambda one: {"type": ["array", "null"], "items": one, "minItems": 1}])  # fmt: skip
def test_deep_schemas_are_read_or_refused_and_never_overflow(wrap):
    """Python's limit would be a RecursionError deep inside a server."""
    for depth in (40, 60, 126, 130, 5000):
        try:
            machine_of(nested(depth, {"type": "null"}, wrap))
        except ValueError as error:
            assert depth > 60 and "nested more than 128 deep" in str(error)
        else:
            assert depth < 130


def test_long_chains_of_references_and_many_properties_are_read():
    """Neither is deep: each is read on its own."""
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(300)} | {"d300": {"const": 1}}
    assert accepts(machine_of({"$ref": "#/$defs/d0", "$defs": chain}), "1")
    wide = {"properties": {f"p{i}": {"type": "integer"} for i in range(200)}}
    assert accepts(machine_of(wide), '{"p3": 1, "p199": 5}')


@example(0.5, -0.5)
@given(st.floats(-50, 50), st.floats(-50, 50))
def test_bounds_of_an_integer_may_be_fractions(low, high):
    """They round inwards; open or closed makes no difference then."""
    for sides in (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")):
        schema = dict(zip(sides, (low, high), strict=True))
        fitting = [n for n in range(-60, 61) if is_valid(n, schema)]
        if not fitting:
            with pytest.raises(ValueError, match="no integer lies between"):
                json_schema({"type": "integer", **schema})
            continue
        machine = machine_of({"type": "integer", **schema})
        assert [n for n in range(-60, 61) if accepts(machine, str(n))] == fitting
