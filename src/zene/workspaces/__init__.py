"""Where a session's files live: its image, access to it, uploads into it and what changed in it."""
