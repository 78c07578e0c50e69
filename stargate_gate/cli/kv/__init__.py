"""The commands of `git kv`, one file each."""
