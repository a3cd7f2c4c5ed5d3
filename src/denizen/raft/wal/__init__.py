"""The durable log: segments of checksummed records, one fsync a batch."""

from denizen.raft.wal.files import Disk, UnsafeDisk
from denizen.raft.wal.log import Base, DurableLog, Recovered

__all__ = ["Base", "Disk", "DurableLog", "Recovered", "UnsafeDisk"]
