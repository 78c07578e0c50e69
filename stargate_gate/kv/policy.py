"""Reads from `.kv/policy.yaml` where to push.

The file comes with the repository, so anybody who may commit there can change it. It may name a server to
push to, but no URL that makes git run a program.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from stargate_gate.kv import git
from stargate_gate.kv.errors import KvError

FILE = ".kv/policy.yaml"
_KEY = "stargate.push_url"
_URL = re.compile(r"(?:ssh|git\+ssh|https)://[^\s-]\S*|file:///\S*|/\S*")
# user@host:path, but not helper::address
_SCP = re.compile(r"(?:[\w.][\w.-]*@)?(?:[\w.][\w.-]*|\[[\w.:]+\]):(?!:|//)[^\s-]\S*")


def push_urls(content: bytes) -> list[str]:
    """The URLs that a policy names.

    Raises:
        KvError: it names no URL, or one that could run a program.
    """
    try:
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise KvError(f"{FILE} is no YAML: {' '.join(str(error).split())}") from None
    section = data.get("stargate") if isinstance(data, dict) else None
    value = section.get("push_url") if isinstance(section, dict) else None
    urls = [value] if isinstance(value, str) else value
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise KvError(f"{FILE} has no {_KEY}; write a URL, or a list of them")
    for url in urls:
        if not _URL.fullmatch(url) and not _SCP.fullmatch(url):
            raise KvError(f"{FILE}: {_KEY} is {url!r}; only ssh://, https:// and file URLs are taken from it")
    return urls


def read() -> bytes:
    """The policy of this repository: the file in the work tree, else the one in HEAD.

    Raises:
        KvError: there is none.
    """
    top = git.run("rev-parse", "--show-toplevel")
    path = Path(top.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")) / FILE
    if top.status == 0 and path.is_file():
        return path.read_bytes()
    committed = git.run("cat-file", "blob", f"HEAD:{FILE}")
    if committed.status:
        raise KvError(f"there is no {FILE} here, neither in the work tree nor in HEAD")
    return committed.stdout


def set_push_urls(remote: str, urls: Sequence[str]) -> None:
    """Replace the remote's pushurls by `urls`.

    Raises:
        KvError
    """
    name = f"remote.{remote}.pushurl"
    git.output("config", "--replace-all", name, urls[0])
    for url in urls[1:]:
        git.output("config", "--add", name, url)
