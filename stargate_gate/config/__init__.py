"""The YAML file: its model, its loading, and errors that name the key and the remedy.

May import: errors, exitcodes; pydantic, yaml and cryptography.
"""
