"""Engines: where the parts of a run are worked off."""
