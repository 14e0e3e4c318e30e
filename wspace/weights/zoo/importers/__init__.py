"""Networks that others trained, made into a zoo: an importer for each form they come in."""
