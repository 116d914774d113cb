"""The seam to what is true: rows, the event log and every query, one file of them a subject."""
