"""The floating address, which follows the leader: an address of an interface, a DNS name, or a program.

May import: config, aio, errors. Only dns.py imports dnspython.
"""
