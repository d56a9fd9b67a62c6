"""What kinds of value Fastn's fields take. Pure."""

from enum import Enum
from typing import cast

from pydantic import JsonValue


class Kind(Enum):
    """Every field also takes null, which clears it."""

    TEXT = "a text"
    NUMBER = "a whole number"
    FLAG = "true or false"
    OBJECT = "an object"
    OBJECTS = "an array of objects"
    TEXTS = "an array of texts"

    def fits(self, value: JsonValue) -> bool:
        """Whether a field of this kind takes `value`."""
        if value is None:
            return True
        match self:
            case Kind.TEXT:
                return isinstance(value, str)
            case Kind.NUMBER:
                return isinstance(value, int) and not isinstance(value, bool)
            case Kind.FLAG:
                return isinstance(value, bool)
            case Kind.OBJECT:
                return isinstance(value, dict)
            case Kind.OBJECTS:
                return isinstance(value, list) and all(isinstance(item, dict) for item in value)
            case Kind.TEXTS:
                return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


TEXT, NUMBER, FLAG = Kind.TEXT, Kind.NUMBER, Kind.FLAG
OBJECT, OBJECTS, TEXTS = Kind.OBJECT, Kind.OBJECTS, Kind.TEXTS
