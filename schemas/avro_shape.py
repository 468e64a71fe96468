"""Checking the shape of Avro bytes against a schema before a general decoder sees them.

Problem: fastavro trusts its input. A stated count of a billion nulls becomes a billion Nones, a negative length reads
everything that is left, a negative union branch indexes from the end, and bytes after the record are ignored. So the
bytes are walked here first, in plain Python, without building anything; what passes is exactly one record, no shorter
and no longer, and fastavro merely decodes it.

GUARANTEE the walk takes at most a step per byte and depth is that of the schema (ours have no recursion), so hostile
bytes cost no more than honest ones. Every item of every array of ours takes at least a byte, so a stated count cannot
outrun the bytes. HAZARD a schema with array items of no bytes would break that: FieldLimit.most must then bound it.

This walk and the column kernels follow the same precedence of faults (see faults.py) and are tested against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .faults import DecodeError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

_INT32 = range(-(1 << 31), 1 << 31)
_LAST_SHIFT = 63


class FieldLimit(NamedTuple):
    """Bytes of a string, or items of an array, that a field may have, and the fault of one outside them."""

    least: int
    most: int
    fault: Fault


class Shape:
    """One schema, ready to check bytes against.

    `limits` are by path, as "Event.source". The schema is plain parsed JSON, named types spelled in full where they
    first stand.
    """

    def __init__(self, schema: Mapping[str, Any], limits: Mapping[str, FieldLimit]) -> None:
        self.record: str = schema["name"]
        self._schema = schema
        self._limits = limits
        self._named: dict[str, Mapping[str, Any]] = {}

    def check(self, data: bytes, position: int) -> None:
        """Raise DecodeError unless data[position:] is exactly one record of the schema."""
        end = self._walk(self._schema, data, position, self.record)
        if end != len(data):
            raise self._error(Fault.TRAILING_BYTES, f"{len(data) - end} bytes follow the record", end)

    def _error(self, fault: Fault, found: str, position: int) -> DecodeError:
        return DecodeError(self.record, fault, f"{found}, at byte {position}")

    def _walk(self, schema: Any, data: bytes, position: int, path: str) -> int:  # noqa: C901, PLR0911, PLR0912 - one case for each type
        if isinstance(schema, list):
            return self._walk_union(schema, data, position, path)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in self._named and not isinstance(schema, dict):
            return self._walk(self._named[kind], data, position, path)
        match kind:
            case "null":
                return position
            case "int" | "long":
                return self._varint(data, position, path, is_int=kind == "int")[1]
            case "double":
                return self._skip(data, position, 8, path)
            case "boolean":
                return self._walk_boolean(data, position, path)
            case "string" | "bytes":
                return self._walk_bytes(data, position, path, is_text=kind == "string")
            case "fixed":
                self._named[schema["name"]] = schema
                return self._skip(data, position, schema["size"], path)
            case "enum":
                self._named[schema["name"]] = schema
                symbol, end = self._varint(data, position, path, is_int=True)
                if not 0 <= symbol < len(schema["symbols"]):
                    raise self._error(Fault.BAD_UNION, f"{path} has no symbol {symbol}", position)
                return end
            case "record":
                self._named[schema["name"]] = schema
                for field in schema["fields"]:
                    position = self._walk(field["type"], data, position, f"{path}.{field['name']}")
                return position
            case "array":
                return self._walk_blocks(schema["items"], data, position, path, is_map=False)
            case "map":
                return self._walk_blocks(schema["values"], data, position, path, is_map=True)
        raise TypeError(f"{self.record}.{path} has the type {kind!r}, which is not used in any schema of this package")

    def _walk_boolean(self, data: bytes, position: int, path: str) -> int:
        end = self._skip(data, position, 1, path)
        if data[position] > 1:
            raise self._error(Fault.BAD_UNION, f"{path} is neither true nor false", position)
        return end

    def _varint(self, data: bytes, position: int, path: str, *, is_int: bool) -> tuple[int, int]:
        raw = shift = 0
        for at in range(position, len(data)):
            byte = data[at]
            if shift == _LAST_SHIFT and byte > 1:
                raise self._error(Fault.BAD_VARINT, f"{path} is a number of more than 64 bits", position)
            raw |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                value = (raw >> 1) ^ -(raw & 1)
                if is_int and value not in _INT32:
                    raise self._error(Fault.BAD_VARINT, f"{path} is {value}, more than 32 bits", position)
                return value, at + 1
        raise self._error(Fault.TRUNCATED, f"the value ends within {path}", position)

    def _skip(self, data: bytes, position: int, length: int, path: str) -> int:
        if length > len(data) - position:
            raise self._error(Fault.TRUNCATED, f"the value ends within {path}", position)
        return position + length

    def _walk_bytes(self, data: bytes, position: int, path: str, *, is_text: bool) -> int:
        length, start = self._varint(data, position, path, is_int=False)
        if length < 0:
            raise self._error(Fault.BAD_LENGTH, f"{path} has the length {length}", position)
        limit = self._limits.get(path)
        if limit is not None and length > limit.most:
            raise self._error(limit.fault, f"{path} has {length} bytes, at most {limit.most} are allowed", position)
        end = self._skip(data, start, length, path)
        if is_text:
            try:
                data[start:end].decode()
            except UnicodeDecodeError as error:
                raise self._error(Fault.BAD_UTF8, f"{path} is not UTF-8", start + error.start) from None
        if limit is not None and length < limit.least:
            raise self._error(limit.fault, f"{path} has {length} bytes, at least {limit.least} are needed", position)
        return end

    def _walk_union(self, branches: list[Any], data: bytes, position: int, path: str) -> int:
        branch, end = self._varint(data, position, path, is_int=False)
        if not 0 <= branch < len(branches):
            raise self._error(Fault.BAD_UNION, f"{path} has no branch {branch}", position)
        return self._walk(branches[branch], data, end, path)

    def _walk_blocks(self, items: Any, data: bytes, position: int, path: str, *, is_map: bool) -> int:
        limit = self._limits.get(path)
        total = 0
        while True:
            at = position
            count, position = self._varint(data, position, path, is_int=False)
            if count == 0:
                return position
            total += abs(count)
            if limit is not None and total > limit.most:
                raise self._error(limit.fault, f"{path} has {total} items, at most {limit.most} are allowed", at)
            stated = None
            if count < 0:
                stated, position = self._varint(data, position, path, is_int=False)
                if stated < 0:
                    raise self._error(Fault.BAD_LENGTH, f"a block of {path} states {stated} bytes", at)
            start = position
            for _ in range(abs(count)):
                if is_map:
                    position = self._walk_bytes(data, position, f"{path}.key", is_text=True)
                position = self._walk(items, data, position, path)
            if stated is not None and position - start != stated:
                raise self._error(
                    Fault.BAD_LENGTH, f"a block of {path} states {stated} bytes and has {position - start}", at
                )
