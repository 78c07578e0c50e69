"""Telling how a node does: checks, the status report, HTTP endpoints, metrics.

May import: election (port and views), config, datadir, errors, exitcodes; aiohttp, prometheus_client.
"""
