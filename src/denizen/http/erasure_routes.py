"""The routes of erasures."""

from typing import Final

from denizen import errors
from denizen.api import erasures as shapes
from denizen.http.handlers import erasures
from denizen.http.read_side_routes import limit
from denizen.http.route import READ, WRITE, Query, Route
from denizen.limits import page_users_max

ERASURES: Final = (
    Route(
        name="erase_user", method="POST", path="/v1/users/{id}:erase", handler=erasures.erase_user, scope=WRITE,
        summary="Destroy a user's personal data for good, in its history too; again: the certificate of then",
        reply=shapes.CertificateDocument, problems=(errors.UserNotFound, errors.OutcomeUnknown),
    ),
    Route(
        name="list_erasures", method="GET", path="/v1/erasures", handler=erasures.list_erasures, scope=READ,
        summary="The users that were erased, the newest first", reply=shapes.ErasurePage,
        query=(
            Query("cursor", "`next_cursor` of the page before. Opaque; never expires.", {"type": "string"}),
            limit(page_users_max),
        ),
    ),
    Route(
        name="get_erasure", method="GET", path="/v1/erasures/{id}", handler=erasures.get_erasure, scope=READ,
        summary="The certificate of an erasure: what was destroyed, and when", reply=shapes.CertificateDocument,
        problems=(errors.UserNotFound, errors.ErasureNotFound),
    ),
)  # fmt: skip
