"""Real DNS servers from the distribution's packages, each with one zone that a TSIG key may change."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import dns.rcode

from tests.support.cluster import WAIT_LIMIT_S, eventually
from tests.support.ports import free_port

ZONE, NAME = "example.test", "stargate.example.test"
SECRET = "x7VeNr1TYe6jHyvsgYSGVnijGEeyIOiesFBiVg+9o54="
ZONE_FILE = f"""\
$ORIGIN {ZONE}.
$TTL 60
@ SOA ns admin 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
other A 192.0.2.1
"""

KNOT = """\
server:
    rundir: "{folder}"
    listen: {address}@{port}
log:
  - target: stderr
    any: info
database:
    storage: "{folder}"
key:
  - id: stargate
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: stargate
    key: stargate
    action: update
    update-type: [A, AAAA, TXT]
    update-owner: name
    update-owner-match: sub-or-equal
    update-owner-name: [{name}.]
zone:
  - domain: {zone}
    storage: "{folder}"
    file: zone
    acl: stargate
"""

BIND = """\
key "stargate" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
    directory "{folder}";
    pid-file "{folder}/named.pid";
    session-keyfile "{folder}/session.key";
    listen-on port {port} {{ {address}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
zone "{zone}" {{
    type primary;
    file "{folder}/zone";
    update-policy {{ grant stargate subdomain {name}. A AAAA TXT; }};
}};
"""


@dataclass(frozen=True)
class DnsServer:
    """One that answers at `address`:`port`; `key_file` is what may change NAME in it."""

    address: str
    port: int
    key_file: Path

    def ask(self, name: str, kind: str) -> list[str]:
        """What it answers to anybody; [] if there is nothing."""
        answer = dns.query.udp(
            dns.message.make_query(name, kind), self.address, timeout=WAIT_LIMIT_S, port=self.port
        )
        assert answer.rcode() in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
        return sorted(record.to_text() for rrset in answer.answer for record in rrset)

    def ttl(self, name: str, kind: str) -> int:
        """How long a resolver may keep that."""
        answer = dns.query.udp(
            dns.message.make_query(name, kind), self.address, timeout=WAIT_LIMIT_S, port=self.port
        )
        return answer.answer[0].ttl


@contextlib.contextmanager
def dns_server(
    folder: Path, kind: str, *, address: str = "127.0.0.1", prefix: tuple[str, ...] = ()
) -> Iterator[DnsServer]:
    """A server of `kind`, "knot" or "bind". `prefix` is put before its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    values = {
        "folder": folder, "address": address, "port": port, "secret": SECRET, "zone": ZONE, "name": NAME,
    }  # fmt: skip
    (folder / "zone").write_text(ZONE_FILE)
    config = folder / f"{kind}.conf"
    config.write_text((KNOT if kind == "knot" else BIND).format(**values))
    key_file = write_key(folder / "key", SECRET)
    argv = ["knotd", "-c", str(config)] if kind == "knot" else ["named", "-g", "-n", "1", "-c", str(config)]
    log = folder / f"{kind}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    server = DnsServer(address, port, key_file)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError, dns.exception.DNSException):
            return bool(
                dns.query.tcp(
                    dns.message.make_query(ZONE, "SOA"), address, timeout=WAIT_LIMIT_S, port=port
                ).answer
            )
        return False

    try:
        if not prefix:
            eventually(answers, f"{kind} answers")
        yield server
    finally:
        process.kill()
        process.wait(WAIT_LIMIT_S)


def write_key(path: Path, secret: str, name: str = "stargate") -> Path:
    """A TSIG key as tsig-keygen writes it."""
    path.write_text(f'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n')
    path.chmod(0o600)
    return path
