"""IGPG's components keep the contracts of their kinds."""

from __future__ import annotations

from wspace.testing import conformance

test_conformance = conformance("igpg")
