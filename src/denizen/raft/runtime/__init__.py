"""The parts of the node around the core: applying, waiting requests, the disk thread, the node's directory."""
