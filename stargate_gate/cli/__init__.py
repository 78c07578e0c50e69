"""The commands, one file for each. May import every package; no package imports it."""
