"""Regular expressions of the source: found, and run by a matcher that counts its steps instead of seconds."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import carzero

SOURCE = Path(carzero.__file__).parent
USES = ("search", "match", "fullmatch", "sub", "split", "findall", "finditer")
ALPHABET = " \t\n\raAzZ0129-_,.:;'\"/\\<>()[]{}=+*&|!?éß\x00\ud800"
MOST_STEPS = 40_000
LINEAR = 2.6  # growth of steps when a text doubles: 2 where they are linear, nearly 4 where they are quadratic


class TooManyStepsError(Exception):
    """A text that takes more steps than any linear pattern would."""


def patterns_in_modules() -> dict[str, re.Pattern]:
    """Every compiled pattern that a module of the package holds, in containers too, by module and name."""
    found: dict[str, re.Pattern] = {}
    for info in pkgutil.walk_packages([str(SOURCE)], "carzero."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            for number, pattern in enumerate(_patterns_of(value)):
                found.setdefault(f"{info.name}.{name}[{number}]", pattern)
    return found


def _patterns_of(value: object, depth: int = 0) -> Iterator[re.Pattern]:
    if isinstance(value, re.Pattern):
        yield value
    elif is_dataclass(value) and not isinstance(value, type) and depth < 3:
        yield from _patterns_of([getattr(value, field.name) for field in fields(value)], depth + 1)
    elif type(value) in (dict, tuple, list) and depth < 3:
        for each in value.values() if type(value) is dict else value:
            yield from _patterns_of(each, depth + 1)


def is_anchored(place: str) -> bool:
    """Whether a module's pattern is used by nothing but `match` and `fullmatch`, wherever its name occurs."""
    owner, _, name = place.rpartition("[")[0].rpartition(".")
    own = SOURCE.parent.joinpath(*owner.split(".")).with_suffix(".py")
    files = [own] if name.startswith("_") else sorted(SOURCE.rglob("*.py"))
    uses = [
        text[found.end() :]
        for path in files
        for text in [path.read_text(encoding="utf-8")]
        for found in re.finditer(rf"\b{name}\b", text)
    ]
    others = [use for use in uses if not re.match(r" = re\.compile|\.(?:full)?match\b|[,\n]", use)]
    return bool(uses) and not others


def direct_calls() -> Iterator[tuple[str, str, re.Pattern]]:
    """Each call of `re` with a written pattern, but `compile`: its file and line, the function, the pattern."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            function = node.func if isinstance(node, ast.Call) else None
            is_call = isinstance(function, ast.Attribute) and function.attr in USES and _is_re(function.value)
            if is_call and isinstance(node.args[0], ast.Constant):
                place = f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}"
                yield place, function.attr, re.compile(node.args[0].value)


def _is_re(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "re"


def growth(pattern: re.Pattern, *, anchored: bool = False, short: int = 16) -> tuple[float, str]:
    """By how much the steps grow when a repeated part of the text is doubled, at worst, and for which text.

    A pattern that takes linear time gives 2, a quadratic one 4. Texts are made for each repetition in the pattern: what
    must stand before it, what it repeats, and something that lets the whole fail. `anchored`: it is tried at the
    beginning of the text only.
    """
    worst, text = 0.0, ""
    tree = _parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    for before, body in _repetitions(list(tree), "", pattern.flags):
        for pump in body:
            for after in ("", "\x00"):
                counts = [_count(tree, pattern.flags, before + pump * n + after, anchored) for n in (short, 2 * short)]
                grown = counts[1] / counts[0] if counts[0] < MOST_STEPS else float("inf")
                if grown > worst:
                    worst, text = grown, before + pump + after
                if worst > LINEAR:
                    return worst, text
    return worst, text


def _count(tree: Any, flags: int, text: str, anchored: bool) -> int:
    matcher = Matcher(text, flags)
    try:
        at = 0
        while at <= (0 if anchored else len(text)):  # as `finditer` goes on
            end: list[int] = []
            found = matcher.run(list(tree), at, lambda i, end=end: end.append(i) is None)
            at = max(end[0], at + 1) if found else at + 1
    except TooManyStepsError:
        return MOST_STEPS * 10
    return matcher.steps


def _repetitions(nodes: list, before: str, flags: int) -> Iterator[tuple[str, list[str]]]:
    """Each repetition without a small bound: a text that leads to it, and texts that it repeats."""
    for kind, value in nodes:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            _, most, body = value
            if most > 30:
                yield before, _pumps(list(body), flags)
            yield from _repetitions(list(body), before, flags)
        elif kind is op.SUBPATTERN:
            yield from _repetitions(list(value[3]), before, flags)
        elif kind is op.BRANCH:
            for each in value[1]:
                yield from _repetitions(list(each), before, flags)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            yield from _repetitions(list(value[1]), before, flags)
        elif kind is op.ATOMIC_GROUP:
            yield from _repetitions(list(value), before, flags)
        before += _sample([(kind, value)])


def _pumps(body: list, flags: int) -> list[str]:
    if len(body) == 1 and body[0][0] in (op.IN, op.ANY, op.LITERAL, op.NOT_LITERAL, op.CATEGORY):
        chars = [char for char in ALPHABET if _fits(body[0], char, flags)]
        return list(dict.fromkeys([*chars, _sample(body)]))
    return [text for text in (_sample(body),) if text]


def _sample(nodes: list) -> str:
    """A short text that the nodes match, but for what lies around it."""
    text = ""
    for kind, value in nodes:
        if kind in (op.LITERAL,):
            text += chr(value)
        elif kind in (op.IN, op.ANY, op.NOT_LITERAL, op.CATEGORY):
            text += next((char for char in "a0 -" + ALPHABET if _fits((kind, value), char, 0)), "")
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            text += _sample(list(value[2])) * min(value[0], 30)
        elif kind is op.SUBPATTERN:
            text += _sample(list(value[3]))
        elif kind is op.BRANCH:
            text += _sample(list(value[1][0]))
        elif kind is op.ATOMIC_GROUP:
            text += _sample(list(value))
    return text


def _fits(node: tuple, char: str, flags: int) -> bool:
    kind, value = node
    if kind is op.ANY:
        return char != "\n" or bool(flags & re.DOTALL)
    same = {each for each in (char, char.lower(), char.upper()) if len(each) == 1} if flags & re.I else {char}
    if kind is op.LITERAL:
        return any(chr(value) == each for each in same) or (bool(flags & re.I) and chr(value).lower() in same)
    if kind is op.NOT_LITERAL:
        return chr(value) not in same
    if kind is op.CATEGORY:
        return _in_category(value, char)
    negated = bool(value) and value[0][0] is op.NEGATE
    return negated != any(_in_item(item, each) for item in value[negated:] for each in same)


def _in_item(item: tuple, char: str) -> bool:
    kind, value = item
    if kind is op.RANGE:
        return value[0] <= ord(char) <= value[1]
    return chr(value) == char if kind is op.LITERAL else _in_category(value, char)


def _in_category(category: Any, char: str) -> bool:
    name = str(category)
    if "DIGIT" in name:
        inside = char.isdecimal()
    elif "SPACE" in name:
        inside = char.isspace()
    else:
        inside = char.isalnum() or char == "_"
    return inside != ("NOT_" in name)


class Matcher:
    """A backtracking matcher of parsed patterns, as slow as the textbook's; counts the nodes that it tries."""

    def __init__(self, text: str, flags: int) -> None:
        self.text, self.flags, self.steps = text, flags, 0
        self.groups: dict[int, tuple[int, int]] = {}
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 60_000))

    def run(  # noqa: C901, PLR0911 (one case a kind of node)
        self, nodes: list, at: int, then: Callable[[int], bool]
    ) -> bool:
        """Whether the nodes match from a place on, so that what follows matches too."""
        if not nodes:
            return then(at)
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooManyStepsError
        (kind, value), rest = nodes[0], nodes[1:]

        def go_on(place: int) -> bool:
            return self.run(rest, place, then)

        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.CATEGORY):
            return at < len(self.text) and _fits(nodes[0], self.text[at], self.flags) and go_on(at + 1)
        if kind is op.BRANCH:
            for each in value[1]:  # noqa: SIM110 (any() would fill the interpreter's own stack)
                if self.run(list(each), at, go_on):
                    return True
            return False
        if kind is op.SUBPATTERN:

            def close(place: int) -> bool:
                if value[0] is not None:
                    self.groups[value[0]] = (at, place)
                return go_on(place)

            return self.run(list(value[3]), at, close)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(value, at, 0, go_on, greedy=kind is op.MAX_REPEAT)
        if kind in (op.POSSESSIVE_REPEAT, op.ATOMIC_GROUP):
            end: list[int] = []

            def stop(place: int) -> bool:
                end.append(place)
                return True

            if kind is op.ATOMIC_GROUP:
                return self.run(list(value), at, stop) and go_on(end[0])
            return self._repeat(value, at, 0, stop, greedy=True) and go_on(end[0])
        if kind in (op.ASSERT, op.ASSERT_NOT):
            direction, body = value
            start = at if direction > 0 else at - body.getwidth()[0]
            found = start >= 0 and self.run(list(body), start, lambda place: direction > 0 or place == at)
            return found == (kind is op.ASSERT) and go_on(at)
        if kind is op.GROUPREF:
            begin, end_of = self.groups.get(value, (0, 0))
            said = self.text[begin:end_of]
            return self.text.startswith(said, at) and go_on(at + len(said))
        return self._at(value, at) and go_on(at)

    def _repeat(self, value: Any, at: int, done: int, then: Callable[[int], bool], *, greedy: bool) -> bool:
        least, most, body = value

        def again(place: int) -> bool:
            if place == at and done >= least:
                return False  # an empty round leads nowhere
            return self._repeat(value, place, done + 1, then, greedy=greedy)

        self.steps += 1
        if done < least:
            return self.run(list(body), at, again)
        if greedy:
            return (done < most and self.run(list(body), at, again)) or then(at)
        return then(at) or (done < most and self.run(list(body), at, again))

    def _at(self, where: Any, at: int) -> bool:
        name, text = str(where), self.text
        before = at > 0 and (text[at - 1].isalnum() or text[at - 1] == "_")
        behind = at < len(text) and (text[at].isalnum() or text[at] == "_")
        if "NON_BOUNDARY" in name:
            return before == behind
        if "BOUNDARY" in name:
            return before != behind
        if "BEGINNING" in name:
            return at == 0 or (bool(self.flags & re.MULTILINE) and name == "AT_BEGINNING" and text[at - 1] == "\n")
        last = at == len(text) or (name == "AT_END" and text[at:] == "\n")
        return last or (bool(self.flags & re.MULTILINE) and text[at] == "\n")
