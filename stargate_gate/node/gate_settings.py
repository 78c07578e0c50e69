"""What of the YAML file concerns the gate, in its own words; and what a single node says first.

May import: config, gate.
"""

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.gate.admission import Shares
from stargate_gate.gate.ssh.login_places import PlaceLimits


def places(config: Config) -> PlaceLimits:
    """Connections before a login."""
    limits = config.limits
    return PlaceLimits(
        limits.max_unauthenticated,
        limits.max_unauthenticated_per_address,
        limits.early_drop_from,
        limits.early_drop_percent,
    )


def shares(config: Config) -> Shares:
    """Sessions, of all and of each."""
    limits = config.limits
    return Shares(
        reads=max(1, limits.max_sessions - limits.max_pushes),
        pushes=limits.max_pushes,
        pushes_per_key=limits.max_pushes_per_key,
        per_key=limits.max_sessions_per_key,
        per_address=limits.max_sessions_per_address,
    )


def next_steps(config: Config, where: Endpoint) -> str:
    """What somebody who typed `stargate serve` does next; `where` the node listens."""
    keys = config.authorized_keys_path
    lines = []
    if not keys.exists():
        lines += ["Nobody may log in yet. Let yourself in:", f"    cat ~/.ssh/id_*.pub >> {keys}", ""]
    lines += [
        "A first push makes the repository:",
        f"    git push ssh://git@{where}/me/project HEAD:main",
        f"    ssh -p {where.port} git@{where.host}",
    ]
    return "\n".join(["", *lines, "", ""])
