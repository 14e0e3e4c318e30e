"""A zoo as files: its format, its card, and the way in and out."""
