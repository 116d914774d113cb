"""Zene broken on purpose, so that each check is seen to fail where a promise is broken.

A broken build is Zene with one thing put out of action, in the process that runs it: nothing in `zene` knows
of it. This is the one place where tests patch our own code.
"""
