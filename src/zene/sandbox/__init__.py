"""The seam to sandboxes: where a session's commands run, and nothing else of the host is."""
