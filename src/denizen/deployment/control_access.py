"""How a process of the deployment reaches the control plane: a client of it, and the map that it pushes."""

from denizen.control.client import ControlClient
from denizen.control.map_source import ControlMapSource
from denizen.control.wire import client_token
from denizen.deployment.layout import Deployment


def client_of(deployment: Deployment, **options: float) -> ControlClient:
    """A client of this deployment's control plane. Addresses and secret are read when they are needed."""
    return ControlClient(deployment.control_addresses, lambda: client_token(deployment.control_secret()), **options)


def map_source_of(deployment: Deployment) -> ControlMapSource:
    """The bucket map: pushed by the control plane, from `map.json` while there is none."""
    return ControlMapSource(client_of(deployment), deployment.map_path)
