"""`denizen status`: how it says what it was told."""

import pytest

from denizen.cli import status
from denizen.deployment.health import DeploymentHealth, GatewayHealth, ProcessHealth


def test_one_restart_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    gateway = GatewayHealth("up", "http://127.0.0.1:1", restarts=1)
    relay, projector = ProcessHealth("relay", "up", restarts=2), ProcessHealth("projector", "up")
    status._show(DeploymentHealth("running", "id", "data", None, None, None, (), gateway, (relay, projector)))
    gateway_line, *others = capsys.readouterr().out.splitlines()[1:4]
    assert gateway_line.endswith(", 1 restart")
    assert others == ["Relay up, 2 restarts", "Projector up"]
