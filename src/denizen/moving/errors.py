"""Why a step of a move was not done. The servers say it by a code (see 0003_moves.sql); each is a class here."""

from typing import Final

from denizen.errors import DenizenError


class MoveRefused(DenizenError):
    """Base: a server did not do a step, and nothing was changed by it."""

    code, status, title = "move_refused", 409, "Step of a move refused"


class StaleAttempt(MoveRefused):
    """A newer attempt of this move is at work."""

    code, title = "stale_attempt", "Another attempt is at work"


class MoveAborted(MoveRefused):
    """This move was aborted, or has given way to a later one; it can never be gone on with."""

    code, title = "move_aborted", "Move aborted"


class BucketBusy(MoveRefused):
    """Another move of this bucket is under way on this server."""

    code, title, retryable = "bucket_busy", "Another move of the bucket", True


class NotHere(MoveRefused):
    """The bucket is not on this server in the state and at the epoch that the step needs."""

    code, title = "bucket_not_here", "Bucket not here"


class SchemasDiffer(MoveRefused):
    """The two servers have different schemas: migrate both first."""

    code, title = "schemas_differ", "Schemas differ"


class NoRoom(MoveRefused):
    """The target's disk is full, or would be."""

    code, status, title = "no_room", 507, "No room on the target"


class FenceTimeout(MoveRefused):
    """A transaction held the bucket for longer than a fence may wait. It is not fenced."""

    code, status, title, retryable = "fence_timeout", 503, "Fence not in time", True


class TooFarBehind(MoveRefused):
    """More events are missing on the target than a fence may hold writes for. It is not fenced; tail on."""

    code, title, retryable = "too_far_behind", "Target too far behind", True


class Outrun(MoveRefused):
    """Writes come faster than they can be copied: the bucket cannot be moved at this rate. It was not fenced."""

    code, title, retryable = "writes_outrun_the_copy", "Writes outrun the copy", True


class CopyDiffers(MoveRefused):
    """The target was compared before the fence, and is not what the source is; `facts` say what differs."""

    code, title = "copy_differs", "Copy differs"


class NotVerified(MoveRefused):
    """The target was not found equal under this fence: it must not open."""

    code, title = "not_verified", "Not verified"


class WorkerLost(DenizenError):
    """The process that copied has ended; its transaction was undone. Repeat the step."""

    code, status, title, retryable = "move_worker_lost", 503, "Copying process lost", True


BY_CODE: Final[dict[str, type[DenizenError]]] = {
    kind.code: kind
    for kind in (
        MoveRefused,
        StaleAttempt,
        MoveAborted,
        BucketBusy,
        NotHere,
        SchemasDiffer,
        NoRoom,
        FenceTimeout,
        TooFarBehind,
        Outrun,
        CopyDiffers,
        NotVerified,
        WorkerLost,
    )
}
