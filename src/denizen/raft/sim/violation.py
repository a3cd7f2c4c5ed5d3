"""What a checker raises: the rule that was broken, and how."""


class Violation(AssertionError):
    """A run broke a rule that must always hold."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail
