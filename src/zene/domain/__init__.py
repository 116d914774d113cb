"""What Zene talks about: pure data and rules. Nothing here does I/O, reads a clock or makes an id by itself."""
