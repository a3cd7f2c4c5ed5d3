"""The event plane: committed events from every shard to everybody who wants them, over NATS JetStream.

PostgreSQL is the truth, the bus is transport. A relay per shard publishes what was committed; a feed gives a consumer
every event of its buckets in order, exactly once, and reads from PostgreSQL whatever the bus lost, or did not bring in
time. Appends never wait for anything in here. docs/bus.md describes the messages for other services.
"""
