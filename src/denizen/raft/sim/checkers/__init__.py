"""Checkers: each knows one rule, looks at every step, and raises `Violation` when the rule is broken. They share
nothing.
"""
