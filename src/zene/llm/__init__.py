"""The seam to model providers: one request in, a stream of typed outputs out."""
