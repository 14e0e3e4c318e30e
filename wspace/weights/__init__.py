"""What can be said of networks as weights: symmetry, matching, tracing, low rank, zoos and networks as files.

It may import `interfaces` and `support`.
"""
