"""Serves requests: decides who may run what, runs git, and acknowledges a push when the standbys have it.

May import: access, repos, config, datadir, net, aio, errors; asyncssh in ssh/ only.
"""
