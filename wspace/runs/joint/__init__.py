"""One generator for several zoos, of different architectures and data sets."""
