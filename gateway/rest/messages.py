"""The protocol's messages as Triton's REST writes them: snake case, numbers as numbers."""

from typing import Any

from google.protobuf.message import Message


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
