"""Replication: the leader's feed, the standby's mirror, the sync set.

May import: election (port and views), repos, config, datadir, errors, exitcodes; asyncssh in connection.py.
"""
