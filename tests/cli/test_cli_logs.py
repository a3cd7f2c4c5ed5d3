"""`denizen logs`: whose logs there are."""

from pathlib import Path

import pytest

from denizen.cli.logs import app
from denizen.deployment.layout import Deployment, ShardRecord
from denizen.errors import BadDeployment


def test_a_shard_that_was_removed_is_not_offered(tmp_path: Path) -> None:
    deployment = Deployment.create(tmp_path / "data", shards=1)
    deployment.record_shard(ShardRecord(id="s2", directory="shards/s2", added=True, removed=True))
    with pytest.raises(BadDeployment) as refused:
        app(["nothing", "--data", str(tmp_path / "data")], exit_on_error=False)
    assert refused.value.detail.endswith(" s1")
