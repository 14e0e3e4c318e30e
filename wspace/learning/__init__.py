"""Training and closed forms on tensors: networks on images, generators on networks; no files of a run, no recipe.

It may import `weights`, `data` and what is below them.
"""
