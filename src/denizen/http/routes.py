"""The table of routes: the one place that says which there are.

Routing, scopes, body limits, OpenAPI and docs/api.md are all made from it. What a route is, is in route.py; the routes
of the read side are in read_side_routes.py, those for operators in operators_routes.py, erasures in erasure_routes.py.
"""

from itertools import groupby
from operator import itemgetter
from typing import Final

from denizen import errors
from denizen.api import shapes
from denizen.deployment.process_metrics import PROCESSES
from denizen.http import refusals
from denizen.http.erasure_routes import ERASURES
from denizen.http.handlers import batches, keys, login_names, system, users
from denizen.http.operators_routes import OPERATORS_ROUTES
from denizen.http.read_side_routes import POSITION, READ_SIDE, TEXT, TIME, limit
from denizen.http.replies import JSON
from denizen.http.route import ADMIN, METRICS, READ, WRITE, Problems, Query, Route
from denizen.limits import batch_body_bytes_max, page_events_max, page_users_max
from denizen.projections.directory.wanted import SORTS
from denizen.users.places import COUNTRIES

_GONE: Final[Problems] = (errors.UserNotFound, errors.UserDeleted, errors.UserErased)
_CHANGES: Final[Problems] = (*_GONE, errors.WrongStatus)
_MERGE_PATCH: Final = "application/merge-patch+json"


_COUNTRY: Final = "|".join(
    f"[{first}{first.lower()}][{seconds}{seconds.lower()}]"
    for first, codes in groupby(sorted(COUNTRIES), itemgetter(0))
    if (seconds := "".join(code[1] for code in codes))
)
_SEARCH: Final = (
    Query("name", "Words, each the beginning of a word of the name, in any script.", TEXT),
    Query("email", "The beginning of the email.", TEXT),
    Query("username", "The beginning of the username.", TEXT),
    Query("status", "The status.", {"type": "string", "enum": ["active", "suspended"]}),
    Query(
        "country",
        "The country, by its ISO 3166-1 alpha-2 code, in either case.",
        {"type": "string", "pattern": f"^({_COUNTRY})$"},
    ),
    Query("attributes", 'Attributes and their values, as a JSON object: `{"plan":"gold"}`.', {"type": "string"}),
    Query("created_from", "Created at this time or later.", TIME),
    Query("created_before", "Created before this time.", TIME),
    Query("updated_from", "Changed last at this time or later.", TIME),
    Query("updated_before", "Changed last before this time.", TIME),
    Query(
        "sort",
        "The order; with `-` the other way round. Without it, the one in which the answer comes quickest.",
        {"type": "string", "enum": [sign + sort for sort in SORTS for sign in ("", "-")]},
    ),
    POSITION,
)


_USERS: Final = (
    Route(
        name="create_user", method="POST", path="/v1/users", handler=users.create_user, scope=WRITE,
        summary="Create a user", status=201, body=shapes.NewUser, reply=shapes.WrittenUser, writes=True,
        problems=(errors.LoginNameTaken,),
    ),
    Route(
        name="list_users", method="GET", path="/v1/users", handler=users.list_users, scope=READ,
        summary="List all users in a stable order over all shards, or search them in the directory",
        reply=shapes.UserPage, problems=(errors.SearchTooBroad,),
        query=(
            *_SEARCH,
            Query("cursor", "`next_cursor` of the page before. Opaque; never expires.", {"type": "string"}),
            limit(page_users_max),
        ),
    ),
    Route(
        name="get_user", method="GET", path="/v1/users/{id}", handler=users.get_user, scope=READ,
        summary="Get a user, as it is or as it was", reply=shapes.UserDocument, cached=True, problems=_GONE,
        query=(
            Query("version", "The user as it was at this version.", {"type": "integer", "minimum": 1}),
            Query("as_of", "The user as it was at this time (RFC 3339) or version.", {"type": "string"}),
        ),
    ),
    Route(
        name="change_user", method="PATCH", path="/v1/users/{id}", handler=users.change_user, scope=WRITE,
        summary="Change a user by a JSON merge patch", body=shapes.UserChanges, reply=shapes.WrittenUser, writes=True,
        media_types=(JSON, _MERGE_PATCH), conditional=True, problems=(*_CHANGES, errors.LoginNameTaken),
    ),
    Route(
        name="delete_user", method="DELETE", path="/v1/users/{id}", handler=users.delete_user, scope=WRITE,
        summary="Delete a user; its login names are free again, its history remains", body=shapes.Why,
        body_required=False, reply=shapes.WrittenUser, writes=True, conditional=True, problems=_CHANGES,
    ),
    Route(
        name="suspend_user", method="POST", path="/v1/users/{id}:suspend", handler=users.suspend_user, scope=WRITE,
        summary="Suspend an active user", body=shapes.Why, body_required=False, reply=shapes.WrittenUser, writes=True,
        conditional=True, problems=_CHANGES,
    ),
    Route(
        name="reactivate_user", method="POST", path="/v1/users/{id}:reactivate", handler=users.reactivate_user,
        scope=WRITE, summary="End a suspension", body=shapes.Why, body_required=False, reply=shapes.WrittenUser,
        writes=True, conditional=True, problems=_CHANGES,
    ),
    Route(
        name="get_history", method="GET", path="/v1/users/{id}/events", handler=users.get_history, scope=READ,
        summary="A user's history: what, when, who and why", reply=shapes.EventPage, problems=(errors.UserNotFound,),
        query=(
            Query("after_version", "Start behind this version.", {"type": "integer", "minimum": 0, "default": 0}),
            limit(page_events_max),
        ),
    ),
)  # fmt: skip

_PASSWORDS_AND_NAMES: Final = (
    Route(
        name="set_password", method="PUT", path="/v1/users/{id}/password", handler=login_names.set_password,
        scope=WRITE, summary="Set or remove a user's password", body=shapes.NewPassword, reply=shapes.WrittenUser,
        writes=True, conditional=True, problems=_CHANGES,
    ),
    Route(
        name="verify_password", method="POST", path="/v1/users/{id}/password/verify",
        handler=login_names.verify_by_id, scope=READ, body=shapes.PasswordGuess, reply=shapes.PasswordVerdict,
        summary="Whether this is the user's password; as slow for users that do not exist",
    ),
    Route(
        name="find_user", method="GET", path="/v1/login-names/{kind}/{value}", handler=login_names.find_user,
        scope=READ, summary="Get the user with a login name", reply=shapes.UserDocument, cached=True,
        problems=(errors.UserNotFound,),
    ),
    Route(
        name="verify_password_by_login_name", method="POST",
        path="/v1/login-names/{kind}/{value}/password/verify", handler=login_names.verify_by_login_name, scope=READ,
        summary="Whether this is the password of the user with a login name", body=shapes.PasswordGuess,
        reply=shapes.PasswordVerdict,
    ),
)  # fmt: skip

_BATCHES: Final = (
    Route(
        name="create_users", method="POST", path="/v1/users:batch", handler=batches.create_users, scope=WRITE,
        summary="Create up to 1,000 users, with a result for each", body=shapes.NewUsers,
        reply=shapes.CreationResults, body_bytes_max=batch_body_bytes_max, writes=True,
    ),
    Route(
        name="get_users", method="POST", path="/v1/users:batch-get", handler=batches.get_users, scope=READ,
        summary="Get up to 1,000 users by id, with a result for each", body=shapes.UserIds,
        reply=shapes.LookupResults,
    ),
)  # fmt: skip

_KEYS: Final = (
    Route(
        name="create_key", method="POST", path="/v1/keys", handler=keys.create_key, scope=ADMIN,
        summary="Create an API key; its secret is shown this once", status=201, body=shapes.NewKey,
        reply=shapes.CreatedKey,
    ),
    Route(
        name="list_keys", method="GET", path="/v1/keys", handler=keys.list_keys, scope=ADMIN,
        summary="List the API keys, revoked ones too", reply=shapes.KeyList,
    ),
    Route(
        name="revoke_key", method="DELETE", path="/v1/keys/{key_id}", handler=keys.revoke_key, scope=ADMIN,
        summary="Revoke an API key, everywhere within a second", status=204, problems=(refusals.KeyNotFound,),
    ),
)  # fmt: skip

_SYSTEM: Final = (
    Route(
        name="live", method="GET", path="/health/live", handler=system.live, scope=None, reply=shapes.Health,
        summary="Whether the process lives",
    ),
    Route(
        name="ready", method="GET", path="/health/ready", handler=system.ready, scope=None, reply=shapes.Health,
        summary="Whether the gateway reaches every shard and takes requests", other_replies=((503, shapes.Health),),
    ),
    Route(
        name="metrics", method="GET", path="/metrics", handler=system.metrics, scope=METRICS, text=True,
        summary="Metrics in Prometheus' text format, of the gateway or of a process of the event plane beside it",
        query=(
            Query("process", "Whose.", {"type": "string", "enum": ["gateway", *PROCESSES], "default": "gateway"}),
        ),
        problems=(refusals.ProcessNotHere,),
    ),
    Route(
        name="version", method="GET", path="/v1/version", handler=system.version, scope=None,
        reply=shapes.ServiceVersion, summary="What is running",
    ),
    Route(
        name="openapi", method="GET", path="/v1/openapi.json", handler=system.openapi, scope=None, reply=dict,
        summary="This description",
    ),
    Route(
        name="problem", method="GET", path="/problems/{code}", handler=system.problem, scope=None, text=True,
        summary="What a problem's code means and what to do about it",
    ),
)  # fmt: skip

ROUTES: Final = (*_USERS, *_PASSWORDS_AND_NAMES, *_BATCHES, *ERASURES, *READ_SIDE, *_KEYS, *OPERATORS_ROUTES, *_SYSTEM)
