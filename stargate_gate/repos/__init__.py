"""Running git: names and paths, argv and environment, processes, pkt-lines, refs, maintenance.

May import: errors, exitcodes, config, datadir, share.
"""
