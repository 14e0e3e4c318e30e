"""One recipe in several variants and seeds, and one table of them all."""
