"""Moving one bucket between two PostgreSQL servers: each step of it, done so that it can be repeated and so that late
work is refused.
"""
