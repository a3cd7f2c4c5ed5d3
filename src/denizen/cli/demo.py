"""`denizen demo`: the narrated tour."""

import sys

from cyclopts import App

app = App(
    name="demo",
    help="""A narrated tour on a deployment of its own, which is gone afterwards. About a minute.

Exit code 1 if a promise is broken on the way.
""",
    help_format="plaintext",
)


@app.default
def demo(*, shards: int = 4) -> None:
    """Run the tour."""
    from denizen.demo.tour import run

    sys.exit(run(shards))
