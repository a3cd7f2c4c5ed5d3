"""A map that never changes, where a process asks for one that may."""

import asyncio

from denizen.sharding.bucket_map import BucketMap


class FixedMap:
    """A map that never changes, as a source."""

    def __init__(self, bucket_map: BucketMap) -> None:
        self._map = bucket_map

    async def current(self) -> BucketMap:
        """The map."""
        return self._map

    async def newer_than(self, version: int) -> BucketMap:
        """Never."""
        await asyncio.Event().wait()
        raise AssertionError(version)
