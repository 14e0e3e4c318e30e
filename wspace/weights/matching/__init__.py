"""Which unit of one network is which of another: by weights, by activations, and what lies between them."""
