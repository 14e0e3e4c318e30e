"""Recipes as text and as checked trees: YAML, plugins, registries, signatures, binding; no torch.

It may import `support` alone.
"""
