"""Everything at once: people at work, faults at random, and witnesses that know nothing of Zene's own books."""
