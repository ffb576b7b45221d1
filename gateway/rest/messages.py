"""The protocol's messages as Triton's REST writes them: snake case, numbers as numbers."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_TYPES = {
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
}


def to_json(message: Message) -> dict[str, Any]:
    """Every field, set or not; an absent message or `oneof` is left out.

    protobuf's own JSON writes 64-bit numbers as strings, which Triton's clients do not expect.
    """
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            fields[field.name] = {key: _value(entry.fields_by_name["value"], value[key]) for key in value}
        elif field.is_repeated:
            fields[field.name] = [_value(field, element) for element in value]
        else:
            fields[field.name] = _value(field, value)
    return fields


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def schema_name(message: Any) -> str:
    """Unique among the protocol's messages, of which some lie within others."""
    return str(message.full_name).partition(".")[2]


def schemas_of(message: Any, prefix: str) -> dict[str, Any]:
    """JSON schemas of what `to_json` makes of a message and of those within it, by name.

    Args:
        prefix: Of references to a schema.
    """
    schemas: dict[str, Any] = {}
    waiting = [message]
    while waiting:
        kind = waiting.pop()
        if schema_name(kind) in schemas:
            continue
        properties = {}
        for field in kind.fields:
            entry = field.message_type
            if entry is not None and entry.GetOptions().map_entry:
                value = entry.fields_by_name["value"]
                properties[field.name] = {"type": "object", "additionalProperties": _schema(value, prefix)}
                entry = value.message_type
            elif field.is_repeated:
                properties[field.name] = {"type": "array", "items": _schema(field, prefix)}
            else:
                properties[field.name] = _schema(field, prefix)
            if entry is not None:
                waiting.append(entry)
        required = [field.name for field in kind.fields if not field.has_presence]
        schemas[schema_name(kind)] = {"type": "object", "properties": properties, "required": required}
    return schemas


def _schema(field: Any, prefix: str) -> dict[str, Any]:
    if field.message_type is not None:
        return {"$ref": prefix + schema_name(field.message_type)}
    if field.enum_type is not None:
        return {"enum": [value.name for value in field.enum_type.values]}
    return {"type": _TYPES.get(field.cpp_type, "integer")}
