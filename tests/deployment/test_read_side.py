"""The read side under `denizen up`: how it is, and a read database of one's own."""

import json
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from denizen.testing.deployment import RunningDeployment, throwaway_deployment
from denizen.testing.postgres import ThrowawayServer, throwaway_server
from deployment.http import Api


def denizen(running: RunningDeployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "denizen", *arguments, "--data", str(running.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read_when_level(running: RunningDeployment) -> Any:
    deadline = time.monotonic() + 30
    while True:
        read = json.loads(denizen(running, "status", "--json").stdout)["read"]
        if len(read["projections"]) == 3 and all(each["lag_events"] == 0 for each in read["projections"]):
            return read
        assert time.monotonic() < deadline, read


def test_status_tells_how_the_read_side_is_and_read_models_live_in_a_database_of_ones_own(
    postgres_server: ThrowawayServer,
) -> None:
    database = postgres_server.create_database(template="template0")
    dsn = database.dsn
    with throwaway_deployment(shards=1, arguments=["--read-dsn", dsn]) as running:
        read = read_when_level(running)
        assert (read["state"], read["managed"], read["parked"]) == ("up", False, 0)
        assert urlsplit(dsn).password not in read["place"]
        assert not (running.data / "read").exists()
        shown = denizen(running, "status").stdout
        assert "read1" in shown
        assert "directory version 1: live" in shown
        assert "denizen_relay_lag_seconds" in Api(running).text("/metrics?process=relay")
        assert "denizen_projection_lag_seconds" in Api(running).text("/metrics?process=projector")
        paused = denizen(running, "projections", "pause", "activity", "--json")
        assert json.loads(paused.stdout) == {"projection": "activity", "state": "paused"}
        assert denizen(running, "status").returncode == 1
        assert denizen(running, "projections", "resume", "activity").returncode == 0
        assert read_when_level(running)["state"] == "up"
    refused = pytest.raises(RuntimeError, match="holds the read models of deployment")
    with refused, throwaway_deployment(shards=1, arguments=["--read-dsn", dsn]):
        pass
    postgres_server.drop_database(database)


def test_users_are_served_while_the_read_database_is_away_and_searched_when_it_is_back() -> None:
    with throwaway_server() as server:
        database = server.create_database(template="template0")
        with throwaway_deployment(shards=1, arguments=["--read-dsn", database.dsn]) as running:
            running.up.stop()
            server.server.stop()
            running.start_again()
            user = Api(running).register("early@example.com")
            assert Api(running).user(user["id"])["email"] == "early@example.com"
            assert denizen(running, "status").returncode == 1
            server.server.start()
            server.server.wait_ready()
            assert read_when_level(running)["state"] == "up"
            found = Api(running).ask("GET", "/v1/users?email=early@example.com")
            assert user["id"] in json.dumps(found)
