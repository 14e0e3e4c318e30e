from wspace.testing import conformance

test_conformance = conformance("example")
