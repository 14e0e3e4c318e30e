"""One recipe, or several, from key to report: stages, artifacts, runs.

It may import every room but `cli`, `uses` and `testing`.
"""
