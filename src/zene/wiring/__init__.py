"""The composition root: settings in, running gateways and workers out. One process or fifty is decided here.

`together` runs both in one process, `gateway` and `worker` each alone; a process imports its own side only.
What a command does not need is imported where it is built: a start takes as long as its imports.
"""
