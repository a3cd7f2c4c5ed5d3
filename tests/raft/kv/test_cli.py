"""The command line `denizen raft …`, as real processes against a cluster that `up` started."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from denizen.raft.kv.local_cluster import LocalCluster


class Shell:
    """Runs `denizen raft …` on one cluster."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DENIZEN_RAFT_DATA": str(self.directory)}
        command = [sys.executable, "-m", "denizen", "raft", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, env=environment, check=False
        )

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A cluster of three nodes, started by `denizen raft up` and ended by Ctrl-C."""
    directory = tmp_path_factory.mktemp("up") / "cluster"
    command = [sys.executable, "-m", "denizen", "raft", "up", "--nodes", "3", "--data", str(directory)]
    process = subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    started = json.loads(process.stdout.readline())
    assert len(started["endpoints"]) == 3
    yield Shell(directory)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()


def test_put_get_delete_and_their_exit_codes(shell: Shell) -> None:
    assert shell.run("get", "greeting").returncode == 1
    put = shell.json("put", "greeting", "hello")
    assert shell.run("get", "greeting").stdout == "hello\n"
    assert shell.json("get", "greeting")["kvs"][0]["mod_revision"] == put["revision"]
    assert "greeting\thello" in shell.run("get", "greet", "--prefix").stdout
    assert shell.run("delete", "greeting").returncode == 0
    assert shell.run("delete", "greeting").returncode == 1


def test_transaction_from_the_input_tells_which_branch_ran(shell: Shell) -> None:
    take = {
        "compare": [{"key": "lock", "target": "version", "operand": 0}],
        "success": [{"put": {"key": "lock", "value": "me"}}],
    }
    assert shell.run("txn", stdin=json.dumps(take)).stdout.startswith("success")
    again = shell.run("txn", json.dumps(take))
    assert again.returncode == 1
    assert again.stdout.startswith("failure")
    broken = shell.run("txn", "{")
    assert broken.returncode == 2
    assert broken.stderr.startswith("denizen raft: the transaction is no JSON")


def test_leases_are_granted_kept_shown_and_revoked(shell: Shell) -> None:
    assert shell.run("lease", "grant", "600", "--id", "7").stdout == "lease 7, 600 s\n"
    taken = shell.run("lease", "grant", "600", "--id", "7")
    assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
    assert "lease 7 exists" in taken.stderr
    assert shell.run("lease", "grant", "0").returncode == 2
    chosen = shell.json("lease", "grant", "500")["id"]
    assert shell.run("put", "leased", "x", "--lease", "7").returncode == 0
    assert shell.json("lease", "keepalive", "7")["ttl_s"] == 600
    listed = {lease["id"]: lease for lease in shell.json("lease", "list")["leases"]}
    assert listed[7]["keys"] == [{"key": "leased"}]
    assert listed[chosen]["ttl_s"] == 500
    assert "s left" in shell.run("lease", "list").stdout
    shown = shell.run("lease", "show", "7").stdout
    assert shown.startswith("7\t")
    assert shown.endswith(" of 600 s left\tleased\n")
    assert shell.run("lease", "revoke", "7").returncode == 0
    assert shell.run("lease", "revoke", str(chosen)).returncode == 0
    assert shell.run("get", "leased").returncode == 1
    for gone in ("show", "keepalive", "revoke"):
        done = shell.run("lease", gone, "7")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_compact_forgets_the_past(shell: Shell) -> None:
    first = shell.json("put", "compacted", "1")["revision"]
    second = shell.json("put", "compacted", "2")["revision"]
    assert shell.run("get", "compacted", "--revision", str(first)).stdout == "1\n"
    assert f"revisions before {second} are forgotten" in shell.run("compact", str(second)).stdout
    lost = shell.run("get", "compacted", "--revision", str(first))
    assert lost.returncode == 1
    assert "is forgotten" in lost.stderr
    assert shell.run("get", "compacted").stdout == "2\n"
    assert shell.run("compact", str(second)).returncode == 1
    assert shell.run("compact", "0").returncode == 2


def test_watch_prints_changes_from_a_revision(shell: Shell) -> None:
    first = shell.json("put", "watched", "1")["revision"]
    shell.run("put", "watched", "2")
    watched = shell.run("watch", "watched", "--from-revision", str(first), "--count", "2")
    assert watched.stdout == f"{first}\tput\twatched\t1\n{first + 1}\tput\twatched\t2\n"


def test_status_transfer_and_snapshot(shell: Shell) -> None:
    rows = shell.json("status")
    assert {row["role"] for row in rows} == {"leader", "follower"}
    assert "leader" in shell.run("status").stdout
    follower = next(row["id"] for row in rows if row["role"] == "follower")
    assert shell.run("transfer", str(follower)).returncode == 0
    deadline = time.monotonic() + 20
    while {row.get("leader") for row in shell.json("status")} != {follower}:
        assert time.monotonic() < deadline
    assert all(answer["index"] > 0 for answer in shell.json("snapshot").values())


def test_node_that_does_not_answer_is_told_with_its_reason_and_hides_no_other(shell: Shell) -> None:
    token = shell.run("token").stdout.strip()
    alive = shell.json("status")[0]["url"]
    both = ["--endpoint", "http://127.0.0.1:1", "--endpoint", alive, "--token"]
    made = shell.run("snapshot", *both, token)
    assert made.returncode == 1
    assert "http://127.0.0.1:1 does not answer" in made.stdout
    assert f"{alive}\tindex" in made.stdout
    shown = shell.run("status", *both, token)
    assert shown.returncode == 1
    assert "http://127.0.0.1:1 does not answer" in shown.stdout
    refused = shell.run("status", *both, "wrong")
    assert refused.returncode == 1
    assert "send the cluster's client token" in refused.stdout


def test_mistakes_are_one_clear_line(shell: Shell, tmp_path: Path) -> None:
    nowhere = shell.run("get", "x", "--data", str(tmp_path))
    assert nowhere.returncode == 2
    assert "start one with `denizen raft up`" in nowhere.stderr
    dead = shell.run("put", "x", "y", "--endpoint", "http://127.0.0.1:1", "--token", "t")
    assert dead.returncode == 1
    assert dead.stderr.count("\n") == 1
    assert "does not answer" in dead.stderr
    refused = shell.run("put", "x", "y", "--lease", "99")
    assert refused.returncode == 1
    assert "lease 99 ran out or was revoked: grant a new one" in refused.stderr
    removed = shell.run("member", "remove", "77")
    assert removed.returncode == 1
    config = tmp_path / "node.toml"
    config.write_text('id = 1\ndata = "x"\nsecret = "short"\n[peers]\n1 = "127.0.0.1:1"\n')
    bad = shell.run("serve", "--config", str(config))
    assert bad.returncode == 2
    assert "secret" in bad.stderr
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "{}/file"], "file cannot hold a cluster"),
        (["--data", "{}/file/below"], "below cannot hold a cluster"),
        (["--data", "{}/new", "--port", "99999"], "6 ports are needed, 99999 to 100004"),
        (["--data", "{}/new", "--port", "65531"], "6 ports are needed, 65531 to 65536"),
        (["--data", "{}/new", "--port", "-1"], "ports are from 1 to 65535"),
        (["--data", "{}/new", "--nodes", "1", "--port", "{port}"], "is taken"),
        (["--data", "{}/two", "--nodes", "3"], "has 2 nodes, not 3: leave --nodes out"),
        (["--data", "{}/two", "--port", "7999"], "leave --port out"),
        (["--data", "{}/held"], "node 2 of the cluster in"),
    ],
)
def test_up_refuses_at_once_what_cannot_be_and_writes_nothing(
    shell: Shell, tmp_path: Path, words: list[str], told: str
) -> None:
    (tmp_path / "file").touch()
    LocalCluster(tmp_path / "two", 2)
    LocalCluster(tmp_path / "held", 2)
    (tmp_path / "held/2/data").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken, (tmp_path / "held/2/data/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        port = taken.getsockname()[1]
        refused = shell.run("up", *(word.replace("{port}", str(port)).replace("{}", str(tmp_path)) for word in words))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert told in refused.stderr
    assert not refused.stdout
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "two/1/data").exists()


def test_up_in_a_directory_in_use_is_refused_and_shows_nothing(shell: Shell) -> None:
    again = shell.run("up")
    assert again.returncode == 2
    assert not again.stdout
    assert (
        again.stderr
        == f"denizen raft: the cluster in {shell.directory} runs already: use it, or choose another --data\n"
    )


def test_up_tells_that_a_node_has_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "denizen", "raft", "up", "--nodes", "2", "--port", "0", "--json"]
    with (tmp_path / "told").open("w") as told:
        up = subprocess.Popen(
            [*command, "--data", str(tmp_path / "cluster")], stdout=subprocess.PIPE, stderr=told, text=True
        )
    assert up.stdout is not None
    assert json.loads(up.stdout.readline())["leader"]
    nodes = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    os.kill(int(nodes[1]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while "node 2 has stopped (exit code -9), 1 of 2 still run" not in (tmp_path / "told").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    up.stdout.close()


CONFIGURATION = """
id = 1
data = "{0}/data"
secret = "sixteen bytes are enough"
{1}
[peers]
1 = "127.0.0.1:1"
"""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('advertise = "kv.example:7101"', "`advertise`: 'kv.example:7101' is no URL such as"),
        ('advertise = "http://"', "`advertise`"),
        ('advertise = "http://kv:port"', "`advertise`"),
        ('advertise = "http://kv:7101/?a=b"', "`advertise`"),
        (f'advertise = "http://{"x" * 600}"', "`advertise`"),
        (
            'tls = {{certificate = "{0}/no.pem", key = "{0}/key", authority = "{0}/key"}}',
            "`tls.certificate` cannot be read",
        ),
        ('tls = {{certificate = "{0}/key", key = "{0}/no.pem", authority = "{0}/key"}}', "`tls.key` cannot be read"),
        ('tls = {{certificate = "{0}/key", key = "{0}/key", authority = "{0}/key"}}', "holds no PEM certificate"),
        ('secret_file = "{0}/none"', "`secret_file` cannot be read"),
    ],
)
def test_serve_names_what_is_wrong_in_a_configuration(shell: Shell, tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "node.toml").write_text(CONFIGURATION.format(tmp_path, line.format(tmp_path)))
    refused = shell.run("serve", str(tmp_path / "node.toml"))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert told in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("peers", "told"),
    [
        (["1=127.0.0.1:1", "127.0.0.1:2"], "--peer '127.0.0.1:2' is not id=host:port"),
        (["one=127.0.0.1:1"], "--peer 'one=127.0.0.1:1' is not id=host:port"),
        (["1=127.0.0.1:1", "1=127.0.0.1:2"], "--peer names node 1 twice"),
        (["1=127.0.0.1:99999"], "`peers.1`: '127.0.0.1:99999' is not host:port"),
    ],
)
def test_serve_refuses_a_peer_that_is_none(shell: Shell, tmp_path: Path, peers: list[str], told: str) -> None:
    given = [word for peer in peers for word in ("--peer", peer)]
    refused = shell.run("serve", "--id", "1", "--data", str(tmp_path / "data"), *given)
    assert (refused.returncode, refused.stderr) == (2, f"denizen raft: {told}\n")


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "up",
        "get",
        "put",
        "txn",
        "watch",
        "member add",
        "transfer",
        "snapshot",
        "compact",
        "lease grant",
        "lease keepalive",
        "lease revoke",
        "lease list",
        "lease show",
    ],
)
def test_help_shows_an_example(shell: Shell, command: str) -> None:
    shown = shell.run(*command.split(), "--help")
    assert shown.returncode == 0
    assert f"denizen raft {command}" in shown.stdout
