"""Names of methods that are more than a row of a table to some code; what each is stands in its opponent's class."""

from __future__ import annotations

OURS = "generated"
"""The recipe's generator itself, the one method of a report that is no component of the kind `opponent`."""
ORACLE = "oracle"
UNIVERSAL = "universal"
BASE = "base"
RIDGE = "ridge"
TEXT_PROTOTYPE = "text-prototype"
MISMATCHED = "mismatched"
