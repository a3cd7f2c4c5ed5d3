"""What can happen to a login name whose user lives in another bucket.

A name in its user's own bucket needs no events of its own: the user's events say it all, for they are in the same
bucket. A name elsewhere has a stream of its own, in its own bucket, so that the content of any bucket can be rebuilt
from its events alone. `reservation` is the id of the command that changes the user's stream. The stream's id is a hash
of the name; the name itself is readable for as long as somebody has it.
"""

from uuid import UUID

from msgspec import Struct


class _NameEvent(Struct, frozen=True, gc=False):
    kind: int
    user_id: UUID
    reservation: UUID


class LoginNameReserved(_NameEvent, frozen=True, omit_defaults=True, gc=False):
    """The name is kept for a user whose stream does not say so yet.

    `value` is the name, which the later events of the stream do not repeat. It is stored apart (see sealing.py) and
    destroyed when the name is given up: None from then on.
    """

    value: str | None = None


class LoginNameConfirmed(_NameEvent, frozen=True, gc=False):
    """The user's stream has the name: it is held."""


class LoginNameLeaving(_NameEvent, frozen=True, gc=False):
    """The user is about to give the name up."""


class LoginNameRestored(_NameEvent, frozen=True, gc=False):
    """The user kept the name after all."""


class LoginNameReleased(_NameEvent, frozen=True, gc=False):
    """The name is free."""


LoginNameEvent = LoginNameReserved | LoginNameConfirmed | LoginNameLeaving | LoginNameRestored | LoginNameReleased
