"""The floating address: it follows the leader, by an address of an interface, a name, or a program.

May import: config, datadir (waiting for children), repos (finish), errors; only dns.py knows dnspython.
"""
