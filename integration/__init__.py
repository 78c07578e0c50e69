"""Two nodes, a shared volume and a client in containers, and what happens when one of them breaks.

May import docker (nothing else may), the outside of the product, and tests.support; see README.md.
"""
