"""Why an input or a command is refused: one exception, with a code that never changes its meaning.

The domain stands alone, so it has an error of its own; the edge translates it (HTTP: 422 with code and field). `CODES`
is the closed list of codes: part of the API, shown in the documentation, and checked there.
"""

from collections.abc import Mapping
from typing import Final

CODES: Final[Mapping[str, str]] = {
    "malformed": "the input is not a JSON object in UTF-8",
    "unknown_field": "the input has a field that is not known here",
    "wrong_type": "a field has another JSON type than it must have",
    "wrong_value": "a value cannot be kept: a number out of range, or nothing JSON knows",
    "text_invalid": "a text has a control character, a lone surrogate or a directional override",
    "too_long": "a text has more characters than its field allows",
    "email_invalid": "not an email address",
    "username_invalid": "not a username",
    "phone_invalid": "not a phone number",
    "login_name_required": "the user would have no login name of a kind that this deployment uses",
    "country_invalid": "not an ISO 3166-1 alpha-2 code",
    "locale_invalid": "not a BCP 47 language tag",
    "time_zone_invalid": "not an IANA time zone",
    "picture_url_invalid": "not an absolute http or https URL",
    "attributes_too_large": "the attributes take more bytes than allowed",
    "attributes_too_deep": "the attributes nest deeper than allowed",
    "password_too_short": "the password has too few characters",
    "password_too_long": "the password has too many characters",
    "password_hash_invalid": "the password hash is of no known format, or broken",
    "password_hash_dangerous": "verifying this password hash would cost too much, or protects too little",
    "wrong_status": "the user's status does not allow this",
}


class Rejected(ValueError):
    """The input or the command breaks a rule of the domain.

    `code` is one of `CODES`; `field` is the dotted path of the field at fault (`name.given`), None where no single
    field is; `detail` is one clear sentence, without personal data beyond the name of the field. `also`: what else is
    wrong with a document (see faults.py).
    """

    def __init__(self, code: str, field: str | None, detail: str, also: "tuple[Rejected, ...]" = ()) -> None:
        super().__init__(code, field, detail, also)  # all, so that it survives the way back from another process
        self.code = code
        self.field = field
        self.detail = detail
        self.also = also

    @property
    def faults(self) -> "tuple[Rejected, ...]":
        """All there are, this one first."""
        return self, *self.also

    def __str__(self) -> str:
        return "; ".join(fault.detail for fault in self.faults)
