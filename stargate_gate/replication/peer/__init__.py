"""The connection of one node to another, and what git needs of it."""
