"""Each revision of the schema, in order."""
