"""The embedded engine: flock(2) on a file of a shared volume, and the cluster record inside that file."""
