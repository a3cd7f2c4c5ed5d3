"""The configuration: layers, and messages that name the key, the origin, the value and what is allowed."""

from pathlib import Path

import pytest

from denizen.deployment.config import IN_WORDS, SECTIONS, hide_password, load_config, parse_listen, place_of_dsn
from denizen.errors import BadConfiguration


def write(directory: Path, text: str) -> Path:
    path = directory / "denizen.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_file() -> None:
    config = load_config(environment={})
    assert config.gateway.listen == "127.0.0.1:0"
    assert config.deployment.login_names == ("email", "username")


def test_environment_goes_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[gateway]\nlisten = "127.0.0.1:1"\n[postgres]\nmax_connections = 50\nmemory = "1GB"\n'
        '[postgres.settings]\nwork_mem = "16MB"\nautovacuum = true\n',
    )
    environment = {"DENIZEN_GATEWAY_LISTEN": "127.0.0.1:2", "DENIZEN_POSTGRES_MAX_CONNECTIONS": "60", "OTHER": "x"}
    config = load_config(path, environment=environment, flags={"gateway.listen": "127.0.0.1:3", "postgres.bin": None})
    assert config.gateway.listen == "127.0.0.1:3"
    assert config.postgres.max_connections == 60
    assert config.postgres.memory_bytes == 1 << 30
    assert config.postgres.settings == {"work_mem": "16MB", "autovacuum": True}


def test_lists_in_variables_are_separated_by_commas() -> None:
    config = load_config(environment={"DENIZEN_DEPLOYMENT_LOGIN_NAMES": "email, phone"})
    assert config.deployment.login_names == ("email", "phone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gatway]\n", r"unknown section \[gatway\]; did you mean gateway\?"),
        ("listen = 1\n", r"unknown section \[listen\]; known are: bus, control, deployment, gateway, postgres"),
        ("gateway = 1\n", r"gateway is a section: write \[gateway\]"),
        ("[gateway]\nlisten_on = ''\n", r"unknown key gateway\.listen_on; did you mean listen\?"),
        ("[gateway\n", "is not valid TOML"),
        ("[gateway]\nlisten = 8080\n", r"gateway\.listen = 8080 \(.*denizen\.toml\): a text in quotes$"),
        ("[deployment]\nshards = 'four'\n", r"deployment\.shards = 'four' \(.*denizen\.toml\): a whole number$"),
        ("[bus]\nservers = 'nats://u@h:1'\n", r"bus\.servers = .*: a list of texts in quotes$"),
        ("[postgres]\nsettings = 1\n", r"postgres\.settings = 1 .*: a section of its own"),
        (
            "[postgres.settings]\njit = true\nwork_mem = [1]\n",
            r"postgres\.settings\.work_mem = \[1\] \(.*denizen\.toml\): a text in quotes, a number, true or false$",
        ),
        ("[gateway]\nlisten = 'here:80'\n", r"gateway\.listen = 'here:80' .* HOST:PORT"),
        ("[deployment]\nshards = 0\n", r"deployment\.shards = 0 .* from 1 to 64"),
        ("[deployment]\nshards = 65\n", r"deployment\.shards = 65 .* from 1 to 64"),
        ("[deployment]\nlogin_names = ['mail']\n", r"deployment\.login_names = \['mail'\] .* email, username, phone"),
        ("[deployment]\nlogin_names = []\n", r"deployment\.login_names"),
        ("[deployment]\nshard_dsns = ['mysql://x/y']\n", r"shard_dsns = 'mysql://x/y' .*: postgresql://"),
        (
            "[deployment]\nshard_dsns = ['postgresql://a@h/d', 'postgresql://b@h:5432/d']\n",
            "need a database of their own",
        ),
        ("[postgres]\nmemory = 'lots'\n", r"postgres\.memory = 'lots' .* \"512MB\" or \"8GB\""),
        ("[postgres]\nmemory = '1MB'\n", r"postgres\.memory = '1MB' .* at least 128MB"),
        ("[postgres]\nmax_connections = 3\n", r"postgres\.max_connections = 3 .* from 20 to 10000"),
        ("[bus]\nservers = ['http://x:1']\n", r"bus\.servers = 'http://x:1' .*: nats://user:password@host:port"),
        ("[bus]\nservers = ['nats://u:secret@']\n", r"bus\.servers = 'nats://u:\*\*\*@'"),
        ("[bus]\nretention_h = 0.0001\n", r"bus\.retention_h = 0\.0001 .* from 0\.001 to 8760"),
        ("[bus]\nretention_size = '1KB'\n", r"bus\.retention_size = '1KB' .* at least 16MB"),
        ("[bus]\ngive_way_s = -1\n", r"bus\.give_way_s = -1.* from 0 to 60"),
        ("[bus]\nreplicas = 2\n", r"bus\.replicas = 2 .*: 1, 3 or 5"),
        ("[postgres.settings]\nport = 1\n", r"postgres\.settings = 'port' .* Denizen decides this setting itself"),
        ("[postgres.settings]\n'a\\nb' = 1\n", r"postgres\.settings .* a name of a PostgreSQL setting"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        load_config(write(tmp_path, text), environment={})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DENIZEN_GATEWAY_LISTN": "x"}, "unknown environment variable DENIZEN_GATEWAY_LISTN; did you mean"),
        (
            {"DENIZEN_DEPLOYMENT_SHARDS": "four"},
            r"deployment\.shards = 'four' \(environment variable DENIZEN_DEPLOYMENT_SHARDS\): a whole number$",
        ),
    ],
)
def test_a_wrong_variable_is_refused_by_name(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        load_config(environment=environment)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"none\.toml cannot be read: No such file"):
        load_config(tmp_path / "none.toml", environment={})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        (":0", ("127.0.0.1", 0)),
        ("8080", ("127.0.0.1", 8080)),
        ("localhost:9", ("localhost", 9)),
    ],
)
def test_addresses_to_listen_on(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen(text) == parsed


@pytest.mark.parametrize("text", ["", "host", "127.0.0.1:", "127.0.0.1:70000", "1.2.3:80", "example.org:80", "a:b:c"])
def test_wrong_addresses_to_listen_on(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_listen(text)


def test_every_key_is_in_the_operations_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for section, struct in SECTIONS.items():
        for key in struct.__struct_fields__:
            assert f"`{section}.{key}`" in guide or f"`[{section}.{key}]`" in guide


def test_every_type_of_a_key_has_words() -> None:
    assert {kind for struct in SECTIONS.values() for kind in struct.__annotations__.values()} == set(IN_WORDS)


def test_passwords_of_dsns_are_not_shown() -> None:
    assert hide_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert hide_password("postgresql://me@host/db") == "postgresql://me@host/db"
    assert hide_password("postgres://me@host/db?password=secret&x=1") == "postgres://me@host/db?password=***&x=1"


@pytest.mark.parametrize(
    "dsn",
    ["foo", "http://me@host/db", "postgresql://host", "postgresql://me:se/cret@host/db", "postgresql://h:99999/d"],
)
def test_what_is_no_dsn_is_refused_without_a_part_of_it(dsn: str) -> None:
    with pytest.raises(ValueError, match=r"^postgresql://user:password@host:port/database$"):
        place_of_dsn(dsn)
