"""How a rule of the state machine says no."""


class Refuse(Exception):
    """A precondition does not hold. `code` is stable; `detail` is a sentence that says what to do."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
