"""`python -m denizen.raft.kv node.toml`: one node of the key-value service, without the command line's other parts."""

import functools
import sys

from denizen.raft.errors import BadSettings
from denizen.raft.kv.config import load
from denizen.raft.kv.running import run


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m denizen.raft.kv node.toml", file=sys.stderr)
        return 2
    try:
        config = load(sys.argv[1])
    except BadSettings as error:
        print(f"denizen raft: {error}", file=sys.stderr)
        return 2
    return run(config, functools.partial(print, flush=True))


if __name__ == "__main__":
    sys.exit(main())
