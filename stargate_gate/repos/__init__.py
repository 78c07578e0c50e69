"""Repositories and git: names, adoption, ids, processes, refs, pkt-lines, housekeeping, trash.

May import: datadir, config, aio, share, printable, errors, exitcodes.
"""
