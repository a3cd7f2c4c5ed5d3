"""The service against a simple model: a dictionary from login names to users, whatever happens to the gateway."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from denizen.errors import LoginNameTaken, UserDeleted, UserNotFound
from denizen.service.gateway import Gateway
from denizen.testing.consistency import assert_consistent
from denizen.testing.pool import DatabasePool
from denizen.users.commands import Registration, UserPatch
from denizen.users.rejections import Rejected

from .worlds import BY, Crash, Crashing, World, email, sweep, username

NUMBERS = st.integers(0, 3)
CRASHES = st.none() | st.tuples(st.integers(1, 6), st.booleans())
KEEP = "keep"

Names = tuple[str | None, str | None]  # email and username


class Machine(RuleBasedStateMachine):
    """Each example has names of its own, so that all of them share one world."""

    gateway: Gateway
    runner: asyncio.Runner
    examples = 0

    @initialize()
    def begin(self) -> None:
        Machine.examples += 1
        random.seed(Machine.examples)  # Hypothesis seeds it alike for each: command ids would come again
        self.users: list[Any] = []  # ids
        self.names: dict[Any, Names] = {}  # of users who are not deleted
        self.gone: set[Any] = set()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def email(self, number: int | None) -> str | None:
        return None if number is None else f"e{number}@x{self.examples}.example.com"

    def username(self, number: int | None) -> str | None:
        return None if number is None else f"u{number}.{self.examples}"

    def taken(self, names: Names, besides: Any = None) -> bool:
        others = [pair for user, pair in self.names.items() if user != besides]
        return any(name is not None and name == other[place] for place, name in enumerate(names) for other in others)

    def attempt(self, work: Any, crash: tuple[int, bool] | None) -> Any:
        """What the work gives: an answer or an error; `Crash` if the gateway ended before it answered."""

        async def attempting() -> Any:
            crashing = None if crash is None else Crashing(self.gateway, crash[0], done=crash[1])
            try:
                return await work
            except (Crash, LoginNameTaken, UserDeleted, UserNotFound, Rejected) as error:
                return error
            finally:
                if crashing is not None:
                    await crashing.heal(self.gateway)
                await self.gateway.names.drain()
                if crashing is not None and crashing.crashed:
                    await sweep(self.gateway)

        return self.run(attempting())

    @rule(mail=st.none() | NUMBERS, name=st.none() | NUMBERS, crash=CRASHES)
    def register(self, mail: int | None, name: int | None, crash: tuple[int, bool] | None) -> None:
        names = self.email(mail), self.username(name)
        result = self.attempt(self.gateway.users.register(Registration(email=names[0], username=names[1]), BY), crash)
        if names == (None, None):
            assert isinstance(result, Rejected)
        elif self.taken(names):
            assert isinstance(result, LoginNameTaken | Crash)
        elif isinstance(result, Crash):
            found = self.find(names)
            if found is not None:
                self.users.append(found)
                self.names[found] = names
        else:
            self.users.append(result.user.id)
            self.names[result.user.id] = names

    @rule(
        which=st.integers(0, 20),
        mail=st.just(KEEP) | st.none() | NUMBERS,
        name=st.just(KEEP) | st.none() | NUMBERS,
        crash=CRASHES,
    )
    def change(self, which: int, mail: Any, name: Any, crash: tuple[int, bool] | None) -> None:
        if not self.users:
            return
        user = self.users[which % len(self.users)]
        patch = UserPatch(**{
            field: value
            for field, number, value in (("email", mail, self.email), ("username", name, self.username))
            if number != KEEP
            for value in [value(number)]
        })  # fmt: skip
        before = self.names.get(user)
        result = self.attempt(self.gateway.users.change(user, patch, context=BY), crash)
        if before is None:
            assert isinstance(result, UserDeleted)
            return
        after = (
            before[0] if mail == KEEP else self.email(mail),
            before[1] if name == KEEP else self.username(name),
        )
        if after == (None, None):
            assert isinstance(result, Rejected)
        elif self.taken(after, besides=user):
            assert isinstance(result, LoginNameTaken | Crash)
        elif isinstance(result, Crash):
            stored = self.run(self.gateway.users.get(user)).user
            assert (stored.email, stored.username) in (before, after)
            self.names[user] = (stored.email, stored.username)
        else:
            assert (result.user.user.email, result.user.user.username) == after
            self.names[user] = after

    @rule(which=st.integers(0, 20), crash=CRASHES)
    def delete(self, which: int, crash: tuple[int, bool] | None) -> None:
        if not self.users:
            return
        user = self.users[which % len(self.users)]
        result = self.attempt(self.gateway.users.delete(user, context=BY), crash)
        if user not in self.names:
            assert isinstance(result, UserDeleted)
        elif not isinstance(result, Crash) or self.is_deleted(user):
            del self.names[user]

    def is_deleted(self, user: Any) -> bool:
        try:
            self.run(self.gateway.users.get(user))
        except UserDeleted:
            return True
        return False

    def find(self, names: Names) -> Any:
        """The one user who has all of these names; None if nobody has any."""
        found = set()
        for name in (names[0] and email(names[0]), names[1] and username(names[1])):
            if name:
                try:
                    found.add(self.run(self.gateway.users.find(name)).id)
                except UserNotFound:
                    found.add(None)
        assert len(found) == 1
        return found.pop()

    @invariant()
    def every_name_resolves_to_its_user_and_to_nobody_else(self) -> None:
        for number in range(4):
            for place, name in ((0, self.email(number)), (1, self.username(number))):
                holder = next((user for user, names in self.names.items() if names[place] == name), None)
                assert self.find((name, None) if place == 0 else (None, name)) == holder

    def teardown(self) -> None:
        self.run(assert_consistent(self.gateway))


def test_the_service_does_what_a_dictionary_would(pool: DatabasePool) -> None:
    with pool.databases(2) as databases, asyncio.Runner() as runner:
        opened = World(databases).gateway()
        Machine.runner = runner
        Machine.gateway = runner.run(opened.__aenter__())
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                Machine,
                settings=settings(
                    max_examples=15,
                    stateful_step_count=15,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def fresh_examples() -> None:
    """Names are numbered by example, from the start."""
    Machine.examples = 0
