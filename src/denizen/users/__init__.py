"""The domain of Denizen: a user as state, events, commands and deciders. Pure, and importing nothing else of ours.

    commands  --decide-->  events  --evolve-->  state

validate.py turns JSON into commands, decide.py commands into events, evolve.py events into state; login_names.py says
when two names are the same; passwords.py hashes and verifies. See docs/users.md.
"""
