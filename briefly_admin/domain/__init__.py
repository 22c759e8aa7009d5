"""Words and rules of Briefly Admin: standard library only, no clock, no environment, no randomness."""
