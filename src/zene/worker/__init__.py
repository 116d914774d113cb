"""From a queued task to its last event."""
