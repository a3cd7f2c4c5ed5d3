"""The desk of a deployment: where its control plane is, and how its shards are measured."""

from denizen.deployment.control_access import client_of
from denizen.deployment.layout import Deployment
from denizen.operators.desk import Desk
from denizen.operators.measuring import ShardMeasures


def desk_of(deployment: Deployment) -> Desk:
    """The desk for this deployment. Nothing is opened before it is needed."""
    return Desk(client_of(deployment), ShardMeasures(deployment.places))
