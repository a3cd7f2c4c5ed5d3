"""People, patches and histories for the property tests, made through the same validation as everybody's."""

import string
from typing import Any

from hypothesis import strategies as st

from denizen.users import events
from denizen.users.commands import Registration, UserPatch
from denizen.users.login_names import LoginNameKind
from denizen.users.state import Name, Status, User
from denizen.users.validate import patch_from, registration_from

ALL_KINDS = frozenset(LoginNameKind)

words = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
international = st.sampled_from(["Zoë", "Ärger", "Αλέξης", "Елена", "서아", "日本", "Straße", "ﬁnn", "Ａnna", "İpek"])
names = words | international
domains = st.sampled_from(["Example.com", "mail.example.org", "bücher.example", "例え.テスト", "STRASSE.example"])
emails = st.builds(lambda local, domain: f"{local}@{domain}", names, domains)
phones = st.integers(10**6, 10**14).map(lambda number: f"+{'4' + str(number)}"[:16])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(words, json_values, max_size=4)
name_documents = st.fixed_dictionaries({}, optional={"given": st.none() | names, "family": st.none() | names})

_PROFILE: dict[str, st.SearchStrategy[Any]] = {
    "phone": st.none() | phones,
    "name": st.none() | name_documents,
    "display_name": st.none() | names,
    "locale": st.none() | st.sampled_from(["en", "de-CH", "ZH-hans-cn"]),
    "country": st.none() | st.sampled_from(["DE", "fr", "CH"]),
    "time_zone": st.none() | st.sampled_from(["Europe/Zurich", "UTC"]),
    "picture_url": st.none() | st.just("https://example.com/me.png"),
    "attributes": st.none() | json_objects,
}
registrations: st.SearchStrategy[Registration] = st.fixed_dictionaries(
    {"email": emails}, optional={"username": st.none() | names, **_PROFILE}
).map(registration_from)
patches: st.SearchStrategy[UserPatch] = st.fixed_dictionaries(
    {}, optional={"email": emails, "username": st.none() | names, **_PROFILE}
).map(patch_from)

_texts = st.none() | names
user_events: st.SearchStrategy[events.UserEvent] = st.one_of(
    st.builds(events.UserRegistered, email=_texts, display_name=_texts, attributes=json_objects),
    st.builds(events.ProfileChanged, name=st.none() | st.builds(Name, _texts, _texts), display_name=_texts),
    st.builds(events.EmailChanged, _texts),
    st.builds(events.UsernameChanged, _texts),
    st.builds(events.PhoneChanged, st.none() | phones),
    st.builds(events.PasswordChanged, _texts),
    st.builds(events.AttributesChanged, json_objects, st.lists(words, max_size=3)),
    st.builds(events.UserSuspended, _texts),
    st.builds(events.UserReactivated, _texts),
    st.builds(events.UserDeleted, _texts),
    st.builds(events.UserErased),
    st.builds(events.DataErased),
)
users: st.SearchStrategy[User] = st.builds(
    User,
    status=st.sampled_from([Status.ACTIVE, Status.SUSPENDED]),
    email=emails,
    username=_texts,
    phone=st.none() | phones,
    name=st.none() | st.builds(Name, _texts, _texts),
    display_name=_texts,
    attributes=json_objects,
    password=_texts,
)
