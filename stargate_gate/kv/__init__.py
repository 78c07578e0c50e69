"""The git-kv client: keys and values in commits on any Git remote, with failover if that is Stargate.

May import: errors, exitcodes, printable. It runs the user's git, so it needs nothing from repos.
"""
