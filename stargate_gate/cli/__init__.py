"""The commands, one file each. May import everything; nothing imports it."""
