"""The seam to what is fast and may be lost: live events, wake-ups and signals to workers."""
