"""The front door: SSH listener, identities, commands, the decision, the relay.

May import: election (port and views), repos, config, datadir, errors, exitcodes; asyncssh.
"""
