"""Who leads, and in which term."""
