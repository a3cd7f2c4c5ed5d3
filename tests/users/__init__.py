"""Tests of the domain: given / when / then, and properties that hold for all people, patches and histories."""
