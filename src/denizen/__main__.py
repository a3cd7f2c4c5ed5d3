"""`python -m denizen`: the same as the `denizen` command."""

from denizen.cli.main import main

main()
