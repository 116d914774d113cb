"""What a tool's arguments are: one Struct says it to the model, as a small JSON Schema, and checks it.

The schema is written here and not by msgspec, whose own names every type twice: each byte of it is sent
with every call of the model.
"""

from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, inspect

from zene.domain.errors import InvalidInput

T = TypeVar("T", bound=Struct)
_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "integer",  # taken as a float, so that 10.0 and 1e18 can be clamped
}


def parameters(arguments: type[Struct]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    return _type(inspect.type_info(arguments))


def decode(arguments: type[T], text: str) -> T:
    """The arguments that a model sent; nothing at all means none. Raises InvalidInput with what to mend."""
    try:
        decoded: T = _decoder(arguments).decode(text or "{}")
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as err:
        is_json = isinstance(err, msgspec.ValidationError)
        what = "do not fit" if is_json else "are not one whole JSON object"
        names = ", ".join(_with_need(arguments))
        raise InvalidInput(f"Not run: the arguments {what}: {err}. Expected: {names}.") from err
    return decoded


@cache
def _decoder(arguments: type[Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(arguments)


def _with_need(arguments: type[Struct]) -> list[str]:
    return [
        field.name if field.required else f"{field.name} (optional)"
        for field in msgspec.structs.fields(arguments)
    ]


def _object(described: inspect.StructType) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.encode_name: _type(field.type) for field in described.fields},
        "required": [field.encode_name for field in described.fields if field.required],
    }


def _type(described: inspect.Type) -> dict[str, Any]:
    match described:
        case inspect.LiteralType(values=values):
            return {"enum": list(values)}
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return {"type": "array", "items": _type(inner)}
        case inspect.StructType():
            return _object(described)
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return _type(inner) | (extra or {})
        case _:
            return {"type": _TYPES[type(described)]}
