"""The coding agent, without a server: it can start anywhere in a history and yields events."""
