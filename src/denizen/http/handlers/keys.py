"""API keys: create (the secret is shown once), list, revoke. For `admin` only."""

import re
from typing import Final

from denizen.api.shapes import CreatedKey, KeyList, NewKey
from denizen.http.refusals import KeyNotFound
from denizen.http.replies import Reply, empty_reply, json_reply
from denizen.http.requests import Request
from denizen.http.services import Services
from denizen.http.views import key_document

_KEY_ID: Final = re.compile(r"[0-9a-z]{1,64}")


async def create_key(services: Services, request: Request) -> Reply:
    """POST /v1/keys"""
    asked = await request.document(NewKey)
    info, secret = await services.keys.create(asked.name, asked.scopes, asked.rate_per_s)
    return json_reply(CreatedKey(key_document(info), secret), 201, [("location", f"/v1/keys/{info.id}")])


async def list_keys(services: Services, request: Request) -> Reply:
    """GET /v1/keys"""
    return json_reply(KeyList([key_document(info) for info in await services.keys.list()]))


async def revoke_key(services: Services, request: Request) -> Reply:
    """DELETE /v1/keys/{key_id}"""
    key_id = request.params["key_id"]
    if not _KEY_ID.fullmatch(key_id) or await services.keys.revoke(key_id) is None:
        raise KeyNotFound("there is no API key with this id")
    return empty_reply()
