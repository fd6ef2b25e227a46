"""JSON that is read back: of the kind it was written as, or refused with the reason.

A kind is a type, such as `dict[str, list[str]]` or a `TypedDict`; pydantic checks it.
What dscpp writes for itself has a hash over its other values: `sealed`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
UNSEAL = f'delete its first line with "{SEAL}"'
"""What to do with a file that was changed on purpose."""

_LARGEST = 2**28  # bytes of a file
_SHOWN = 3  # faults that a message names


class Changed(ValueError):
    """What dscpp wrote has other values than it had then."""


def parse(text: str | bytes, kind: Any) -> Any:
    """Read JSON of a kind.

    Numbers, text and lists are not turned into each other.

    Returns:
        What `json.loads` gives: keys beyond those of the kind stay, in their order.

    Raises:
        ValueError: no JSON, or nested too deep, or a value of another type; names the
            first of them, by key.
    """
    _checked(kind, text, strict=True)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def typed(value: Any, kind: Any) -> Any:
    """Make a kind, such as a dataclass, of values that JSON knows.

    Text becomes a number, unless the kind is strict: `__pydantic_config__`.

    Raises:
        ValueError: it is of another kind; as `parse`. A key is a date, for instance, or
            text is no Unicode.
    """
    try:
        text = json.dumps(value, default=str, ensure_ascii=False).encode()
    except TypeError as error:
        raise ValueError(f"expected text as each key, found {error}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"expected text in Unicode, found {error}") from None
    return _checked(kind, text)


def load(path: Path, kind: Any) -> Any:
    """Read a file of JSON of a kind, without its hash; see `parse` and `sealed`.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse` and `require_unchanged`.
    """
    content = parse(read(path), kind)
    require_unchanged(content)
    if isinstance(content, dict):
        content.pop(SEAL, None)
    return content


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the hash over its other values, first: `require_unchanged`.

    First, so that who changes a value by hand can delete the line.
    """
    kept = {k: v for k, v in value.items() if k != SEAL}
    return {SEAL: digest(_plain(kept)), **kept}


def require_unchanged(value: Any) -> None:
    """Refuse an object that was changed after it was written; older ones have no hash.

    Raises:
        Changed: see `is_unchanged`.
    """
    if not is_unchanged(value):
        raise Changed(
            f"{SEAL}: expected the values that dscpp wrote, found values changed by "
            "something else"
        )


def is_unchanged(value: Any) -> bool:
    """Whether the hash of an object, if it has one, is that over its other values.

    Other spaces, another order of keys and 15 for 15.0 are no change.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return True
    kept = {k: v for k, v in value.items() if k != SEAL}
    # Older hashes are over numbers as they were written, such as 15.0.
    return value[SEAL] == digest(_plain(kept)) or value[SEAL] == digest(kept)


def _plain(value: Any) -> Any:
    """The value as it is read back, with whole numbers as int, as others write them."""
    return json.loads(json.dumps(value), parse_float=_number)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def read(path: Path) -> bytes:
    """Read a small file whole.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no end, such as /dev/zero, or is larger than any of ours.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes")
    return content


def recall(path: Path, kind: Any) -> Any | None:
    """As `load`; None where there is none of the kind: what can be made again."""
    try:
        return load(path, kind)
    except (OSError, ValueError):
        return None


def tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of JSON with tuples for lists, as what cannot be changed has them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _checked(kind: Any, text: str | bytes, **options: Any) -> Any:
    import pydantic  # not above: --help needs none of it

    try:
        return _adapter(kind).validate_json(text, **options)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(map(_message, error.errors()[:_SHOWN]))) from None


@functools.cache
def _adapter(kind: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(kind)


_WORDS = {
    "missing": "expected a value, found none",
    "extra_forbidden": "expected no such key",
    "unexpected_keyword_argument": "expected no such key",
}


_EXPECTED = re.compile("Input should be|[A-Z][a-z]+ should have")
# What pydantic calls one of several types: "tuple[int, ...]", no key such as "a[1]".
_TYPE = re.compile(r"(tuple|list|dict|set|literal|nullable|function-[a-z]+)\[.*\]")


def _message(fault: Any) -> str:
    keys = [str(key) for key in fault["loc"]]
    path = ".".join(key for key in keys if not _TYPE.fullmatch(key))
    text = _WORDS.get(fault["type"]) or _EXPECTED.sub("expected", fault["msg"])
    if fault["type"] not in ("missing", "json_invalid"):
        text += f", found {reprlib.repr(fault['input'])}"
    return f"{path}: {text}" if path else text
