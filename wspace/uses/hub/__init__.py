"""Generators, zoos and generated weights on a model hub: sent with their card, and fetched with every hash checked."""
