"""What gateway and client agree on: the documents that go over the wire. It imports neither of them."""
