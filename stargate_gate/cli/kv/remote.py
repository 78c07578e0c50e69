"""`git kv remote`."""

from typing import Any

import click

from stargate_gate.cli.kv.options import common, common_options
from stargate_gate.cli.kv.output import print_json
from stargate_gate.kv import git, policy
from stargate_gate.kv.remotes import configured


@click.group("remote")
def command() -> None:
    """Set where writes go."""


@command.command("setup")
@common_options
def setup(**said: Any) -> None:
    """Read stargate.push_url from .kv/policy.yaml and make it the pushurl of the remote.

    The file is read from the work tree, else from HEAD. A list becomes several pushurls; git kv finds the
    leader among them.
    """
    what = common(**said)
    configured(what.remote, git.settings())
    urls = policy.push_urls(policy.read())
    policy.set_push_urls(what.remote, urls)
    if what.json:
        print_json({"remote": what.remote, "pushurl": urls})
    else:
        for url in urls:
            click.echo(f"remote.{what.remote}.pushurl {url}")
