"""The contract of `sandbox.base`, and what nobody in a sandbox may do, on every backend."""
