"""A node's own disk: paths, the data_dir's id, durable small files, local locks, records of writers.

May import: aio, printable, formats, errors, exitcodes.
"""
