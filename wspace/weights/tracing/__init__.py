"""Which hidden units of any module may be permuted: inferred by tracing it, or written by hand, and proven."""
