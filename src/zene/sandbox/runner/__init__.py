"""What runs inside a sandbox as PID 1: only the standard library, from Python 3.9 on, few imports.

Its modules are compiled by the host's Python and shown to the sandbox read-only (`confine`); of them the
host itself uses `frames` alone.
"""
