"""Tests of `denizen up` and its companions: real processes, started, killed and looked at from outside."""
