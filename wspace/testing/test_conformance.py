"""`pytest --pyargs wspace.testing`: every component of every plugin that is in use here."""

from __future__ import annotations

from wspace.testing import conformance

test_conformance = conformance()
