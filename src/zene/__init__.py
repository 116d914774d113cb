"""Zene runs coding agents for many people at once, on one installation, each in a sandbox."""
