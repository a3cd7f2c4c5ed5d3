"""Moving one bucket between two PostgreSQL servers: each step of it, done so that it can be repeated and so that late
work is refused.

    prepare → copy → tail, tail, … → fence → finish → open → close → clean
                                       └→ bar → reopen (→ tail …, or → abort)

`Mover` (mover.py) has a method for each step; `denizen.control` decides which one is next.

    Mover(connect_args: Callable[[ShardId], Mapping[str, Any]], hash_seed, kinds, pace: Pace | None)   # async with
    prepare(move) -> Prepared                       finish(move, fence_epoch) -> Verification
    copy(move, progress) -> Copied                  open(move, epoch)      close(move, epoch)
    tail(move) -> int                               bar(move) -> bool      reopen(move, epoch)
    fence(move, fence_epoch) -> Head                abort(move, progress) -> bool    clean(move, progress) -> Copied

What is so:

1. Every step carries the move's id and attempt. In its transaction each server compares them with its row of
   `denizen.bucket_moves`; a higher attempt than the row's is taken over, a lower one is refused (`StaleAttempt`), and
   so is every attempt of a move that was aborted (`MoveAborted`). Repeating a step that was done is success.
2. Errors are kinds of `DenizenError` (errors.py). `retryable` says whether the same step may succeed later;
   `Unavailable` says that a server does not answer, and that the step may or may not have been done: repeat it.
3. `prepare` is refused while another move of the bucket is under way on one of the two servers (`BucketBusy`), unless
   the source has the bucket open at `move.epoch`, unless both servers have the same schema, and without room on the
   target's disk where that can be known. What an earlier move left on the target is removed, at a limited rate.
4. `copy` takes the events up to the source's head, in slices; each slice is one transaction on the target: the events
   as they are, the fold of them into states and login names, the target's head and digest. It goes on from the
   target's own head, so it can be cut off anywhere. Nobody reads a bucket that is `incoming`. Slices run in worker
   processes, which start with the first copy.
5. `tail` is one more round, and says how many events were still missing after it. Writes that outrun it end in
   `Outrun`: the bucket is never fenced then, for `fence` itself refuses (`TooFarBehind`) while more is missing than can
   be copied in a moment.
6. `fence` waits a bounded time for the bucket's row (`FenceTimeout`: not fenced). Afterwards the source is at
   `fence_epoch` and refuses writes.
7. `finish` brings what the fence left and what is carried row by row (idempotency records, cancelled commands), then
   compares what is on the target with the source. `EQUAL` is written down on the target in the same transaction, and
   only then can `open` succeed. Anything that breaks off half-way is an error, never `EQUAL`.
8. `open`: from then on the target takes writes, at that epoch. `close`: the source answers "moved" for ever.
9. `bar`: no attempt up to this one can open the target any more (False: it is open already, roll forward). The copy
   stays, and the same move may tail and fence again. `reopen` then opens the source at `epoch`, fenced or not.
10. `abort`: the same for ever, on both servers, and the target's copy is removed (False: the target is open). It does
    not touch the source's bucket: after a fence, first `bar` and `reopen`.
11. `clean` removes the source's copy after the commit, at a limited rate. Nobody reads a bucket that has moved away.

`Pace` (pace.py) slows copies and clean-ups down by the shards' own latency and an operator's rates; `measure`
(measures.py) says what each bucket of a shard weighs.
"""
