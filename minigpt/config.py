"""How does a setting reach the code? dataclass <-> command line <-> JSON.

A setting is a field of a frozen dataclass that lives beside the code it configures. The field's name is the flag,
its type says what is accepted, its default is the default, and the comment behind it is the help text:

    @dataclass(frozen=True, kw_only=True)
    class OptimConfig:
        lr: float = 1e-3  # learning rate at the top of the schedule

gives `--lr 3e-4`. Dataclasses nest; the command line stays flat, so field names are unique across one run.

In:  a complete config (a preset's) and sys.argv.
Out: a new complete config, or a ValueError that says what was wrong and what would work.
This file knows nothing about models; it is the only one that every other room may lean on.
"""

import dataclasses
import difflib
import inspect
import io
import json
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

Config = TypeVar("Config")  # any frozen dataclass whose fields are settings or further such dataclasses
Changes = dict[tuple[str, ...], Any]  # where in a nested config -> its new value

SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


class Setting(NamedTuple):
    """One leaf of a nested config: where it stands, what it accepts, what it says."""

    path: tuple[str, ...]  # ("optim", "lr")
    type: Any              # float, Literal["a", "b"], int | None, tuple[str, ...]
    value: Any
    help: str

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def written(self) -> str:
        """The value as a user writes it after the flag: `on`, `none`, `3e-4`."""
        return _shown(self.value)

    @property
    def accepts(self) -> str:
        """What the user may write after the flag: `{on,off}`, `INT`, `FLOAT|none`."""
        kind, optional = _strip_none(self.type)
        if kind is bool:
            name = "{on,off}"
        elif typing.get_origin(kind) is Literal:
            name = "{" + ",".join(typing.get_args(kind)) + "}"
        else:
            name = "TEXT" if kind in (str, tuple[str, ...]) else kind.__name__.upper()
        return name + ("|none" if optional else "")


def settings(config: Any, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every leaf of a nested config, in the order in which it is written."""
    hints, comments = typing.get_type_hints(type(config)), _trailing_comments(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, (*path, field.name))
        else:
            yield Setting((*path, field.name), hints[field.name], value, comments.get(field.name, ""))


# --- command line -----------------------------------------------------------------------------------------------


def from_command_line(defaults: Config, argv: Sequence[str], usage: str) -> Config:
    """Override `defaults` by `--config FILE` first and by the flags after it, wherever they stand.

    `--help` and `--print-config` print and exit with status 0.
    Raises: ValueError for an unknown flag or a value that does not fit, naming the nearest match.
    """
    if {"-h", "--help"} & set(argv):
        print(help_text(defaults, usage))
        sys.exit(0)
    known = {setting.name: setting for setting in settings(defaults)}
    options = {**{setting.flag: setting.accepts for setting in known.values()}, "--config": "FILE"}
    given, print_only = _split_flags(argv, known, options)
    changes: Changes = {}
    for file in given.pop("config", []):
        changes |= _from_file(defaults, Path(file))
    for name, texts in given.items():
        setting = known[name]
        if setting.type == tuple[str, ...]:
            changes[setting.path] = tuple(texts)
        else:  # a repeated flag: the last one counts
            changes[setting.path] = parse(texts[-1], setting.type, setting.flag)
    config = replace(defaults, changes)
    if print_only:
        print(to_json(config), end="")
        sys.exit(0)
    return config


def given_flags(argv: Sequence[str]) -> set[str]:
    """Names of the settings that a command line mentions: {"n_layer", "lr"}."""
    return {arg[2:].partition("=")[0].replace("-", "_") for arg in argv if arg.startswith("--")}


def _split_flags(
    argv: Sequence[str], known: dict[str, Setting], options: dict[str, str]
) -> tuple[dict[str, list[str]], bool]:
    """["--n-layer", "4", "--clean=off"] -> {"n_layer": ["4"], "clean": ["off"]}; and whether to print only."""
    given: dict[str, list[str]] = {}
    print_only, rest = False, list(argv)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("--"):
            raise ValueError(f"unexpected {arg!r}: settings are written --flag value. See --help.")
        flag, equals, text = arg.partition("=")
        name = flag[2:].replace("-", "_")
        if name == "print_config":
            print_only = True
            continue
        if name not in known and name != "config":
            hint = _did_you_mean(flag.replace("_", "-"), options) or "."
            raise ValueError(f"unknown flag {flag}{hint} See --help.")
        if not equals:
            switch = name in known and known[name].type is bool
            if switch and (not rest or rest[0].lower() not in SWITCH):
                text = "on"  # a bare --overwrite
            elif rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            else:
                accepts = options["--" + name.replace("_", "-")]
                raise ValueError(f"{flag} needs a value: {accepts}. (A value beginning with --: {flag}=VALUE)")
        given.setdefault(name, []).append(text)
    return given, print_only


def parse(text: str, kind: Any, flag: str) -> Any:
    """One value from its text, as the field's type wants it."""
    kind, optional = _strip_none(kind)
    if optional and text.lower() == "none":
        return None
    if kind is bool:
        if text.lower() not in SWITCH:
            raise ValueError(f"{flag} is on or off, not {text!r}")
        return SWITCH[text.lower()]
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            hint = _did_you_mean(text, choices) or "."
            raise ValueError(f"{flag} cannot be {text!r}{hint} Choose one of: {', '.join(choices)}")
        return text
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{flag} needs {wanted}{' or none' if optional else ''}, not {text!r}") from None


def help_text(defaults: Any, usage: str) -> str:
    """The whole --help page: usage, then the flags group by group with their defaults."""
    lines = [usage.strip(), "", "--config FILE.json   start from a saved config (flags still win)",
             "--print-config       print the resolved config as JSON and stop"]
    group: tuple[str, ...] | None = None
    for setting in settings(defaults):
        if setting.path[:-1] != group:
            group = setting.path[:-1]
            lines += ["", f"{' '.join(group) or 'run'}:"]
        default = _shown(setting.value)
        left = f"  {setting.flag} {setting.accepts}"
        text = textwrap.wrap(f"{setting.help} [{default}]".strip(), 78)
        lines += [f"{left:<34}{text[0]}" if len(left) < 33 else f"{left}\n{'':34}{text[0]}"]
        lines += [f"{'':34}{line}" for line in text[1:]]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "none"
    return "none" if value is None else str(value)


# --- JSON -------------------------------------------------------------------------------------------------------


def to_json(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_dict(defaults: Config, data: Any, source: str) -> Config:
    """A nested dict (what `to_json` wrote) laid over `defaults`. `source` is named in errors."""
    return replace(defaults, _leaves(defaults, data, source))


def _from_file(defaults: Any, file: Path) -> Changes:
    try:
        return _leaves(defaults, json.loads(file.read_text(encoding="utf-8")), str(file))
    except OSError as error:
        raise ValueError(f"--config {file}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"--config {file} is not JSON: {error}") from None


def _leaves(defaults: Any, data: Any, source: str) -> Changes:
    """{"optim": {"lr": 0.1}} -> {("optim", "lr"): 0.1}, each key and value checked against the settings."""
    if not isinstance(data, dict):
        raise ValueError(f"{source}: expected an object with settings, found {type(data).__name__}")
    hints, changes = typing.get_type_hints(type(defaults)), {}
    for key, value in data.items():
        if key not in hints:
            raise ValueError(f"{source}: unknown setting {key!r}{_did_you_mean(key, hints)}")
        if dataclasses.is_dataclass(getattr(defaults, key)):
            inner = _leaves(getattr(defaults, key), value, source)
            changes |= {(key, *path): leaf for path, leaf in inner.items()}
        else:
            changes[key,] = _from_json(value, hints[key], f"{source}: {key}")
    return changes


def _from_json(value: Any, kind: Any, name: str) -> Any:
    """JSON's value as the field's type wants it; only what `to_json` can have written is accepted."""
    kind, optional = _strip_none(kind)
    if value is None and optional:
        return None
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if typing.get_origin(kind) is Literal and isinstance(value, str):
        return parse(value, kind, name)
    if type(value) is not kind:
        raise ValueError(f"{name} needs {getattr(kind, '__name__', kind)}, not {value!r}")
    return value


# --- small pieces -----------------------------------------------------------------------------------------------


def replace(config: Config, changes: Changes) -> Config:
    """A copy with all changes made at once, so that only the result is validated and not the states in between."""
    here = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for group in {path[0] for path in changes if len(path) > 1}:
        inner = {path[1:]: value for path, value in changes.items() if path[0] == group}
        here[group] = replace(getattr(config, group), inner)
    return dataclasses.replace(config, **here)


def differences(old: Any, new: Any) -> list[tuple[Setting, Setting]]:
    """The settings in which two configs of one class differ."""
    pairs = zip(settings(old), settings(new), strict=True)
    return [(a, b) for a, b in pairs if a.value != b.value]


def nearest(word: str, choices: typing.Iterable[str]) -> str | None:
    """The choice that looks most like `word`, if any does."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(kind: str, word: str, choices: typing.Collection[str]) -> ValueError:
    """The error for a name that is none of `choices`: the nearest of them, or all."""
    match = nearest(word, choices)
    hint = f"did you mean {match}?" if match else f"choose one of: {', '.join(choices)}"
    return ValueError(f"unknown {kind} {word!r}: {hint}")


def _did_you_mean(word: str, choices: typing.Iterable[str]) -> str:
    match = nearest(word, choices)
    return f": did you mean {match}?" if match else ""


def _strip_none(kind: Any) -> tuple[Any, bool]:
    """int | None -> (int, True)"""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        rest = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
        return rest[0], True
    return kind, False


@cache
def _trailing_comments(cls: type) -> dict[str, str]:
    """The comment behind each field, read from the class's own source: one place for the setting and its meaning."""
    comments, first_name_of_line = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(inspect.getsource(cls))).readline):
        line = token.start[0]
        if token.type == tokenize.NAME:
            first_name_of_line.setdefault(line, token.string)
        elif token.type == tokenize.COMMENT and line in first_name_of_line:
            comments[first_name_of_line[line]] = token.string.lstrip("# ")
    return comments
