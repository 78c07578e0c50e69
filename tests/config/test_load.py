"""Loading: every problem at once, each with file, line, key path and remedy; never a traceback."""

import os
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.load import load_config
from stargate_gate.config.mistakes import known_keys
from stargate_gate.config.model import Config
from stargate_gate.config.peek import peek_paths
from stargate_gate.config.tsig import read_tsig_key
from stargate_gate.errors import ConfigurationError

FIVE_MISTAKES = """\
node:
  data_dri: /var/lib/stargate
ssh:
  listen: [127.0.0.1:2222, nowhere]
election:
  heartbeat_s: "1"
  watchdog_s: 30
log:
  level: loud
"""

CLUSTER = """\
cluster: {name: prod, address: "stargate.local:2222", key: /k/cluster}
ssh: {host_keys: [/k/host]}
election: {flock: {path: /mnt/lock}}
"""


def test_five_mistakes_are_five_lines(problems: Any) -> None:
    """Type, spelling, choice, shape and a rule across keys: all at once, in the file's order."""
    assert problems(FIVE_MISTAKES) == [
        "node.yaml:2: node.data_dri: unknown key; did you mean 'data_dir'?",
        (
            "node.yaml:4: ssh.listen[1]: 'nowhere' is not host:port; "
            "write it as in '127.0.0.1:2222' or '[::1]:2222'"
        ),
        (
            "node.yaml:5: election.lease_s: 5 must be more than election.watchdog_s (30), "
            "or a node that hangs could still lead when another takes over; five heartbeats are usual"
        ),
        "node.yaml:6: election.heartbeat_s: must be a number, but is the text '1'; write 1 without quotes",
        (
            "node.yaml:9: log.level: must be one of 'debug', 'info', 'warning' or 'error', "
            "but is the text 'loud'; change it"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "node.yaml:1: is empty; write at least 'node: {}' for a single node with all defaults"),
        (
            "# nothing\n",
            "node.yaml:1: is empty; write at least 'node: {}' for a single node with all defaults",
        ),
        ("- node\n", "node.yaml:1: is not a mapping; write keys and values, as in 'node: {name: node-a}'"),
        ("node\n", "node.yaml:1: is not a mapping; write keys and values, as in 'node: {name: node-a}'"),
        ("node: {}\n---\nnode: {}\n", "node.yaml:2: has more than one document; remove all but one"),
        ("node:\n\tname: a\n", "node.yaml:2: not YAML: a tab at the start of a token; indent with spaces"),
        ("node:\n  name: [a\nssh: {}\n", "node.yaml:3: not YAML: expected ',' or ']'"),
        ("node: 'a\n", "node.yaml:2: not YAML: found unexpected end of stream"),
        ("node: *there\n", "node.yaml:1: not YAML: found undefined alias 'there'"),
        ("node:\n  name: a\x01b\n", "node.yaml:2: character 1 is not allowed in YAML; remove it"),
        ("node: " + "[" * 20_000, "node.yaml:1: is nested too deeply"),
    ],
)
def test_what_is_no_mapping_at_all_is_one_line(problems: Any, text: str, line: str) -> None:
    """Empty files, other shapes and broken syntax say where and what to do."""
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("node: {name: a}\nnode: {name: b}\n", "node.yaml:2: node: is given twice (first in line 1)"),
        ("node:\n  name: a\n  name: a\n", "node.yaml:3: node.name: is given twice (first in line 2)"),
        ("nod: {}\n", "node.yaml:1: nod: unknown key; did you mean 'node'?"),
        ("node: {Data-Dir: /x}\n", "node.yaml:1: node.Data-Dir: unknown key; did you mean 'data_dir'?"),
        (
            "listen: x\n",
            "node.yaml:1: listen: unknown key here; did you mean 'ssh.listen' or 'health.listen'?",
        ),
        (
            "log: {xyzzy: 1}\n",
            "node.yaml:1: log.xyzzy: unknown key; remove it, the keys here are format, level",
        ),
        ('log: {"a\\nb": 1}\n', "node.yaml:1: log.'a\\nb': unknown key"),
        ("1: x\n", "node.yaml:1: the key '1' is not text"),
        ("? [a]\n: b\n", "node.yaml:1: the key 'a list or a mapping' is not text"),
        (
            "log: &l {level: info}\nssh: {<<: *l}\n",
            "node.yaml:2: ssh: the key '<<' is not text; '<<' (merging)",
        ),
        ("node: !!python/object:os.system {}\n", "node.yaml:1: node: the tag"),
        ("node: {name: !include x}\n", "node.yaml:1: node.name: the tag '!include' is not supported"),
        ("node: {name: !!int x}\n", "node.yaml:1: node.name: 'x' cannot be read; put it in quotes"),
        (
            "node: {name: 2026-02-31}\n",
            "node.yaml:1: node.name: '2026-02-31' cannot be read; put it in quotes",
        ),
        (f"node: {{name: {'1' * 5000}}}\n", "node.yaml:1: node.name: '1111"),
        ("cluster:\n", "node.yaml:1: cluster: is empty; write name, address and key, or remove it"),
        (
            "ssh: 3\n",
            "node.yaml:1: ssh: must be a mapping of keys and values, but is the number 3; write its keys",
        ),
        ("node: {data_dir: ~nobody-here/x}\n", "node.yaml:1: node.data_dir: '~nobody-here/x': that home"),
        ('node: {data_dir: "a\\0b"}\n', "node.yaml:1: node.data_dir: 'a\\x00b' cannot be a path"),
        ("node: {name: -a}\n", "node.yaml:1: node.name: '-a' cannot be a name; write 1 to 63 letters"),
        (
            "ssh: {proxy_protocol_from: [10.0.0.5, 10.0.0.5/8]}\n",
            "node.yaml:1: ssh.proxy_protocol_from[1]: '10.0.0.5/8' has bits set after its length",
        ),
        ("address: {kind: vip}\n", "node.yaml:1: address: must be a list, but is a mapping"),
    ],
)
def test_one_mistake_is_one_line(problems: Any, text: str, line: str) -> None:
    """Each mistake names its line and key path, and says what to write instead."""
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(line)
    assert ";" in found[0] or "did you mean" in found[0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"8080"', "must be a number, but is the text '8080'; write 8080 without quotes"),
        ("5s", "must be a number, but is the text '5s'; write digits only, without a unit"),
        ("true", "must be a number, but is the truth value true"),
        ("[1]", "must be a number, but is a list"),
        ("{}", "must be a number, but is a mapping"),
        ("", "must be a number, but is empty; write a value or remove the key"),
        (".nan", "must be a finite number"),
        (".inf", "must be a finite number"),
        ("0", "must be at least 0.01, but is the number 0"),
        ("-1", "must be at least 0.01, but is the number -1"),
        ("60000000", "must be at most 86400, but is the number 60000000; the unit is seconds"),
        ("0x" + "f" * 5000, "but is a huge number"),
        ("2026-01-01", "must be a number, but is a date"),
    ],
)
def test_durations_are_numbers_of_seconds(problems: Any, value: str, said: str) -> None:
    """Whatever is no sensible number is refused, texts and truth values included."""
    (line,) = problems(f"replication:\n  full_check_s: {value}\n")
    assert line.startswith("node.yaml:2: replication.full_check_s: ")
    assert said in line


@pytest.mark.parametrize("value", ["2.0", "'4'", "true", "0", "65", "1e3", "null"])
def test_counts_are_whole_numbers_in_range(problems: Any, value: str) -> None:
    """A fraction, a text or a truth value is no count."""
    assert len(problems(f"replication: {{parallel_fetches: {value}}}\n")) == 1


@pytest.mark.parametrize("value", ["1", "'yes'", '"true"', "null"])
def test_truth_values_are_true_or_false(problems: Any, value: str) -> None:
    """What only looks like a truth value is refused."""
    (line,) = problems(f"repositories: {{create_on_push: {value}}}\n")
    assert "must be true or false" in line


@pytest.mark.parametrize(
    "value", ["1", "1.5", "no", "null", "[a]", "''", "a b", "a/b", "x" * 64, "é", '"a\\nb"']
)
def test_names_are_plain_text(problems: Any, value: str) -> None:
    """YAML makes numbers and truth values of some names: that is said, not guessed."""
    (line,) = problems(f"node: {{name: {value}}}\n")
    assert line.startswith("node.yaml:1: node.name: ")


@pytest.mark.parametrize(
    "value",
    ["''", "a..b", "a b", "-a", "HEAD", "a.lock", "a~1", "/a", "a/", "a//b", ".a", "a/.b", "'@'", "'a@{b'",
     "1", "refs/heads/x", '"a\\x7f"', "x" * 201],
)  # fmt: skip
def test_the_default_branch_is_one_that_git_takes(problems: Any, value: str) -> None:
    """git-check-ref-format(1) decides, before git has to."""
    assert len(problems(f"repositories: {{default_branch: {value}}}\n")) == 1


@pytest.mark.parametrize("value", ["8080", "true", "{}", "[]", "[1]", "null", "[null]", "[[a]]"])
def test_listen_is_an_address_or_a_list_of_them(problems: Any, value: str) -> None:
    """A bare port, an empty list and other shapes are refused."""
    assert len(problems(f"health: {{listen: {value}}}\n")) == 1


def test_a_misspelt_required_key_is_one_problem(problems: Any) -> None:
    """The key that was meant is not reported as missing too, nor what follows from that."""
    text = CLUSTER.replace("address", "adress").replace("path", "pth")
    assert problems(text) == [
        "node.yaml:1: cluster.adress: unknown key; did you mean 'address'?",
        "node.yaml:3: election.flock.pth: unknown key; did you mean 'path'?",
    ]


def test_missing_keys_do_not_hide_rules_across_keys(problems: Any) -> None:
    """Half a cluster is told all that a cluster needs, in one go."""
    found = problems("cluster: {name: prod}\nssh: {listen: '0.0.0.0:2222'}\n")
    keys = [line.split(": ")[1] for line in found]
    assert sorted(keys) == [
        "cluster.address", "cluster.key", "election.flock.path", "ssh.advertise", "ssh.host_keys",
    ]  # fmt: skip


def test_a_wrong_value_has_no_consequences(problems: Any) -> None:
    """No rule is reported as broken because of a value that is reported itself."""
    assert len(problems("election: {heartbeat_s: x, watchdog_s: 0.5}\n")) == 1
    assert len(problems("ssh: {listen: [':1']}\nhealth: {listen: '127.0.0.1:2222'}\n")) == 1


def test_the_second_of_two_equal_keys_does_not_hide_the_first_ones_mistakes(problems: Any) -> None:
    """Both are reported."""
    found = problems("ssh:\n  listen: [x]\n  listen: y\n")
    assert [line.split(" ")[0] for line in found] == ["node.yaml:2:", "node.yaml:3:"]


@pytest.mark.parametrize(
    "text", ["node: &a {node: *a}\n", "address: &a [*a]\n", "cluster: &a {name: *a, key: *a}\n"]
)
def test_rings_of_aliases_end(problems: Any, text: str) -> None:
    """A file that contains itself is a mistake like any other."""
    assert problems(text)


def test_aliases_cannot_blow_up(problems: Any) -> None:
    """Nine levels of nine aliases each, a thousand million values, are read at once."""
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert len(problems("\n".join(levels))) == 10


def test_aliases_are_fine_for_plain_use(write: Any) -> None:
    """One value in two places."""
    config = load_config(write("election: {heartbeat_s: &beat 0.5}\nreplication: {full_check_s: *beat}\n"))
    assert config.replication.full_check_s == 0.5


def test_relative_paths_start_from_the_files_folder(write: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Wherever the program is started."""
    path = write("node: {data_dir: data}\nssh: {host_keys: [../k], authorized_keys: ~/keys}\n")
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config(path)
    assert config.node.data_dir == tmp_path / "data"
    assert config.ssh.host_keys == (tmp_path / "../k",)
    assert config.authorized_keys_path == Path("/home/me/keys")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path(path.name)) == config


def test_no_file_is_a_single_node_on_loopback(monkeypatch: Any) -> None:
    """The defaults are a working configuration, in the user's data directory."""
    monkeypatch.delenv("STARGATE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config(None)
    assert config.cluster is None
    assert config.ssh.listen == (Endpoint("127.0.0.1", 2222),)
    assert config.node.data_dir == Path("/home/me/.local/share/stargate")
    assert config.authorized_keys_path == Path("/home/me/.local/share/stargate/authorized_keys")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert load_config(None).node.data_dir == Path("/data/stargate")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert load_config(None).node.data_dir == Path("/home/me/.local/share/stargate")


def test_the_environment_names_the_file(write: Any, monkeypatch: Any) -> None:
    """$STARGATE_CONFIG is read unless a file is given; empty counts as unset."""
    path = write("node: {name: from-file}\n")
    monkeypatch.setenv("STARGATE_CONFIG", str(path))
    assert load_config(None).node.name == "from-file"
    monkeypatch.setenv("STARGATE_CONFIG", "")
    assert load_config(None).cluster is None


def test_an_unusable_host_name_is_told(monkeypatch: Any) -> None:
    """A default that does not fit is reported like a value of the file."""
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="a b"))
    monkeypatch.delenv("STARGATE_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match=r"^defaults: node.name: 'a b' cannot be a name"):
        load_config(None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "cannot be read (it is a directory, not a regular file)"),
        (lambda path: path.write_bytes(b"node:\n  name: \xff\n"), "is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * 300_000), "is larger than"),
        (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, make: Any, said: str) -> None:
    """Whatever is wrong with the file itself."""
    path = tmp_path / "node.yaml"
    make(path)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    (line,) = caught.value.problems
    assert line.startswith(str(path))
    assert said in line


def test_a_byte_order_mark_is_no_mistake(write: Any) -> None:
    """Editors of other systems write one."""
    assert load_config(write("\ufeffnode: {name: n}\n")).node.name == "n"


def test_a_section_with_nothing_below_it_has_its_defaults(write: Any) -> None:
    """As after commenting out all of its keys."""
    config = load_config(write("ssh:\nelection:\n  flock:\nlimits: {}\n"))
    assert config.election == Config().election


def told(path: Path) -> tuple[str, ...]:
    """What is wrong with the file; nothing if it loads."""
    try:
        load_config(path)
    except ConfigurationError as error:
        return error.problems or ("nothing is said",)
    return ()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=5), inner)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(sorted(known_keys(), key=str)), VALUES, min_size=1, max_size=4)
)
def test_whatever_a_file_says_it_loads_or_is_told(write: Any, changes: dict[Any, Any]) -> None:
    """Any value for any key: a Config, or lines of "file:line: key.path: what; remedy". Nothing else."""
    data: dict[str, Any] = {}
    for key, value in changes.items():
        above = data
        for part in key[:-1]:
            if not isinstance(above.setdefault(part, {}), dict):
                above[part] = {}
            above = above[part]
        above[key[-1]] = value
    path = write(yaml.safe_dump(data, allow_unicode=True))
    for line in told(path):
        assert line.startswith(f"{path}:")
        assert line.isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200) | st.text("ab:- \n\t[]{}&*!|>'\"#%@`,?<", max_size=60))
def test_garbage_is_told_and_never_a_traceback(write: Any, text: str) -> None:
    """Any text at all."""
    path = write("")
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert all(line.isprintable() for line in told(path))


NUMBERS = st.integers(1, 80_000) | st.floats(0.01, 80_000)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.lists(NUMBERS, min_size=3, max_size=3, unique=True), port=st.integers(0, 65535), days=NUMBERS
)
def test_what_is_written_is_what_is_read(write: Any, values: list[float], port: int, days: float) -> None:
    """Values that keep the rules come back as they are."""
    heartbeat, watchdog, lease = sorted(values)
    data = {
        "election": {"heartbeat_s": heartbeat, "watchdog_s": watchdog, "lease_s": lease},
        "ssh": {"listen": f"[::1]:{port}"},
        "repositories": {"trash_days": min(days, 30_000)},
    }
    config = load_config(write(yaml.safe_dump(data)))
    assert (config.election.heartbeat_s, config.election.lease_s) == (heartbeat, lease)
    assert config.ssh.listen == (Endpoint("::1", port),)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("0200", "is the number 128 in YAML (a leading 0 is octal); write 200 or 128"),
        ("020", "is the number 16 in YAML (a leading 0 is octal); write 20 or 16"),
        ("3:20", "is the number 200 in YAML (base 60); write a plain number, or text in quotes"),
        ("1:30.5", "is the number 90.5 in YAML (base 60); write a plain number, or text in quotes"),
    ],
)
@pytest.mark.parametrize("key", ["limits: {max_sessions", "election: {lease_s", "node: {name"])
def test_a_number_that_yaml_reads_as_another_is_no_number(
    problems: Any, value: str, line: str, key: str
) -> None:
    """Was taken without a word: people write 0200 and mean 200."""
    (found,) = problems(f"{key}: {value}}}\n")
    assert found.endswith(f"{value} {line}")


@pytest.mark.parametrize("value", ["0", "0.5", "10", "1_000", "0x10"])
def test_numbers_that_mean_what_they_say_are_fine(write: Any, value: str) -> None:
    """0 is no octal number."""
    assert load_config(write(f"election: {{drain_s: {value}}}\n")).election.drain_s == float(eval(value))


def test_a_fifo_is_no_configuration(tmp_path: Path) -> None:
    """Opening it would wait for a writer, for ever."""
    fifo = tmp_path / "node.yaml"
    os.mkfifo(fifo)
    with pytest.raises(
        ConfigurationError, match=r"node\.yaml: cannot be read \(it is a FIFO, not a regular file\)"
    ):
        load_config(fifo)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        peek_paths(fifo)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_told_by_its_name(tmp_path: Path, coding: str) -> None:
    """With its mark and without."""
    file = tmp_path / "node.yaml"
    file.write_bytes("node: {name: node-a}\n".encode(coding))
    with pytest.raises(
        ConfigurationError, match=r"is UTF-16, as some editors on Windows save it; save it as UTF-8"
    ):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ssh: {listen: [" + "'127.0.0.1:22'," * 15_000 + "]}", "has more than 2000 keys and values"),
        ("node: " + "[" * 5000, "is nested too deeply"),
        ("node: " + "{a: " * 5000, "is nested too deeply"),
        ("- " * 5000, "is nested too deeply"),
        ("".join(f"a{number}: 1\n" for number in range(20_000)), "has more than 2000 keys and values"),
    ],
)
def test_what_no_configuration_has_is_told_soon(problems: Any, text: str, line: str) -> None:
    """Each took seconds up to a minute: quadratic in the number of entries, or of brackets."""
    (found,) = problems(text)
    assert line in found


def test_a_tsig_key_file_of_blanks_is_refused_soon() -> None:
    """10 KB took seconds, and four times as many 16 times as long."""
    for text in ('key "a" {' + " " * 1_000_000 + "};", "/*" * 500_000):
        with pytest.raises(ValueError, match="is too long for one TSIG key"):
            read_tsig_key(text)
    with pytest.raises(ValueError, match="has the algorithm ''"):
        read_tsig_key('key "a" {' + " " * 4000 + "};")
