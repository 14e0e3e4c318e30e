"""Mappings to YAML that reads back to the same values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString


def dump(values: Mapping[str, Any]) -> str:
    """YAML that `read_recipe` reads back to the same values."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(_quoted(values), stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:
    """With quotes around the strings that ruamel would write bare, or folded, and not read back."""
    if isinstance(value, Mapping):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(inner) for inner in value]
    if isinstance(value, str) and (value.startswith(("?", ":")) or not value.isprintable()):
        return DoubleQuotedScalarString(value)
    return value
