"""The login names of a user with their buckets: the same as `users.state.login_names`, quicker for the common case."""

from xxhash import xxh3_64_intdigest

from denizen.sharding.ids import BUCKETS
from denizen.users.login_names import LoginNameKind
from denizen.users.state import User, login_names

_EMAIL, _USERNAME = LoginNameKind.EMAIL.value, LoginNameKind.USERNAME.value


class LoginNamesOf:
    """Call it with a user: (kind, normalised value, bucket) of each login name."""

    def __init__(self, seed: int, kinds: frozenset[LoginNameKind]) -> None:
        self._seed = seed
        self._kinds = kinds
        self._email = LoginNameKind.EMAIL in kinds
        self._username = LoginNameKind.USERNAME in kinds
        self._phone = LoginNameKind.PHONE in kinds

    def __call__(self, user: User) -> list[tuple[int, str, int]]:
        return [
            (kind, value, xxh3_64_intdigest(b"%d\0%b" % (kind, value.encode()), self._seed) % BUCKETS)
            for kind, value in self.normal(user)
        ]

    def normal(self, user: User) -> list[tuple[int, str]]:
        """Kind and normalised value. A name in ASCII is valid already, so only its case can differ."""
        names = []
        email, username = user.email, user.username
        if email is not None and self._email:
            value = email.lower()
            if not email.isascii() or "xn--" in value:
                return self._by_the_domain(user)
            names.append((_EMAIL, value))
        if username is not None and self._username:
            if not username.isascii():
                return self._by_the_domain(user)
            names.append((_USERNAME, username.lower()))
        return self._by_the_domain(user) if self._phone and user.phone is not None else names

    def _by_the_domain(self, user: User) -> list[tuple[int, str]]:
        return [(name.kind.value, name.value) for name in login_names(user, self._kinds)]
