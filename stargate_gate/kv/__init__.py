"""The git-kv client: keys and values in commits, on any Git remote; at its best with Stargate.

May import: errors, exitcodes. (Repos, too, by the design; nothing of it is needed: this is a user's git.)
"""
