"""What only a command can do wrong."""

from denizen.errors import BadConfiguration


class CalledWrongly(BadConfiguration):
    """The command was called wrongly; the message says how to call it. Its exit code is 2."""
