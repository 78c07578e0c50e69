"""The YAML file: its model, its loading, and error messages that name the key and the remedy.

May import: aio, printable, errors, exitcodes; pydantic, yaml and cryptography.
"""
