"""The rival: the `eventsourcing` library replays the same events into a table like ours.

It is used as its documentation tells: aggregates saved by an `Application` on PostgreSQL, a `Projection` with a
materialised view that subclasses its `PostgresTrackingRecorder`, run by `ProjectionRunner`, which reads from its
subscription and applies each event in one transaction with the event's position. What an event makes of a row is our
own fold of the directory, so that both do the same work. The table has the same columns, but only the index of its
key, and commits do not wait for the disk: both are to the library's advantage. So is that nothing is encrypted.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner

from denizen.events.records import RecordedEvent
from denizen.projections.directory.model import STATE, TERMS, DirectoryRow, fold, words_of_row
from denizen.projections.projection import Output
from denizen.sharding.ids import Bucket, Position, Sequence
from denizen.users.events import AttributesChanged, EmailChanged, ProfileChanged, UserEvent, UserRegistered
from denizen.users.state import Name

WAIT_S: Final = 120.0
SAVED_AT_ONCE: Final = 200


class Person(Aggregate):
    """A user, as one models it with the library."""

    class Registered(Aggregate.Created):
        """The first event."""

        email: str
        username: str
        given: str
        family: str
        country: str
        attributes: dict[str, Any]

    class CountryChanged(Aggregate.Event):
        """Another country."""

        country: str

    class EmailChanged(Aggregate.Event):
        """Another email."""

        email: str

    class AttributesChanged(Aggregate.Event):
        """Other attributes."""

        changed: dict[str, Any]

    def __init__(self, **_: Any) -> None:
        """What the aggregate itself remembers does not matter here: the projection is measured."""


class People(Application[UUID]):
    """Where people are saved."""


class View(PostgresTrackingRecorder):
    """The table, and what is written to it with the tracking in one transaction."""

    def apply(self, event: RecordedEvent, tracking: Tracking) -> None:
        """Apply one event to its row, and remember its position."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            found = cursor.execute(_SELECT, (event.stream,), prepare=True).fetchone()
            before = None if found is None else DirectoryRow(*found.values())
            after = fold(event.stream, before, [event], Output())
            if after is None:
                raise ValueError("nobody is deleted in this history")
            cursor.execute(_UPSERT, tuple(after), prepare=True)
            old, new = set(words_of_row(before)) if before else set(), set(words_of_row(after))
            for term in old - new:
                cursor.execute(_REMOVE, tuple(term), prepare=True)
            for term in new - old:
                cursor.execute(_ADD, tuple(term), prepare=True)


class Directory(Projection[View]):
    """From the library's events to the view."""

    name = "rival"

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Only the events below are of interest."""

    @process_event.register
    def _(self, event: Person.Registered, tracking: Tracking) -> None:
        name = Name(event.given, event.family)
        registered = UserRegistered(
            email=event.email,
            username=event.username,
            name=name,
            country=event.country,
            locale="en",
            attributes=event.attributes,
        )
        self.view.apply(_recorded(event, registered), tracking)

    @process_event.register
    def _(self, event: Person.CountryChanged, tracking: Tracking) -> None:
        self.view.apply(_recorded(event, ProfileChanged(country=event.country)), tracking)

    @process_event.register
    def _(self, event: Person.EmailChanged, tracking: Tracking) -> None:
        self.view.apply(_recorded(event, EmailChanged(event.email)), tracking)

    @process_event.register
    def _(self, event: Person.AttributesChanged, tracking: Tracking) -> None:
        self.view.apply(_recorded(event, AttributesChanged(changed=event.changed)), tracking)


_COLUMNS: Final = ", ".join(STATE.names)
_SELECT: Final = f"select {_COLUMNS} from rival_directory where user_id = %s"  # noqa: S608 - our own names
_UPSERT: Final = (
    f"insert into rival_directory ({_COLUMNS}) values ({', '.join(['%s'] * len(STATE.names))})"  # noqa: S608
    f" on conflict (user_id) do update set {', '.join(f'{name} = excluded.{name}' for name in STATE.names[1:])}"
)
_ADD: Final = "insert into rival_directory_terms (user_id, term) values (%s, %s) on conflict do nothing"
_REMOVE: Final = "delete from rival_directory_terms where user_id = %s and term = %s"


def _recorded(event: Any, ours: UserEvent) -> RecordedEvent:
    position = Position(Bucket(0), Sequence(1))
    kind = type(ours).__name__
    stream = event.originator_id
    return RecordedEvent(position, stream, event.originator_version, kind, 1, event.timestamp, stream, "", None, ours)


def environment(connect_args: Mapping[str, Any]) -> dict[str, str]:
    """How the library is told where its database is."""
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(connect_args["database"]),
        "POSTGRES_HOST": str(connect_args["host"]),
        "POSTGRES_PORT": str(connect_args["port"]),
        "POSTGRES_USER": str(connect_args["user"]),
        "POSTGRES_PASSWORD": str(connect_args["password"]),
        "POSTGRES_SCHEMA": "public",
    }


def tables() -> list[str]:
    """The statements that make the view's tables."""
    found = []
    for table in (STATE, TERMS):
        create = table.create(1).replace(f"denizen_read.{table.at(1)}", f"rival_{table.name}")
        found += [create, f"create unique index on rival_{table.name} ({', '.join(table.key)})"]
    return found


def save(env: Mapping[str, str], streams: Mapping[UUID, list[RecordedEvent]]) -> int:
    """Save these streams as the library stores them; how many events that were."""
    saved, waiting = 0, []
    with People(dict(env)) as people:
        for stream, events in streams.items():
            waiting.append(_person(stream, [recorded.event for recorded in events]))
            saved += len(events)
            if len(waiting) == SAVED_AT_ONCE:
                people.save(*waiting)
                waiting = []
        people.save(*waiting)
    return saved


def _person(stream: UUID, events: list[Any]) -> Person:
    """The aggregate with the same life."""
    first = cast(UserRegistered, events[0])
    name = first.name or Name()
    person = Person._create(
        Person.Registered,
        id=stream,
        email=first.email,
        username=first.username,
        given=name.given,
        family=name.family,
        country=first.country,
        attributes=first.attributes,
    )
    for event in events[1:]:
        if isinstance(event, ProfileChanged):
            person.trigger_event(Person.CountryChanged, country=event.country)
        elif isinstance(event, EmailChanged):
            person.trigger_event(Person.EmailChanged, email=event.email)
        elif isinstance(event, AttributesChanged):
            person.trigger_event(Person.AttributesChanged, changed=event.changed)
    return person


def replay(env: Mapping[str, str], events: int) -> float:
    """Replay everything that was saved into the view; the seconds it took."""
    began = time.monotonic()
    with ProjectionRunner(
        application_class=People, projection_class=Directory, view_class=View, env=dict(env)
    ) as runner:
        runner.wait(runner.app.recorder.max_notification_id(), timeout=WAIT_S)
    return time.monotonic() - began
