"""What a node keeps on its own disk: paths, identity, durable small files, local locks.

May import: errors, exitcodes.
"""
