"""What handlers work with: the user service, the keys, the password threads and the gateway's own records."""

from msgspec import Struct, field

from denizen.bus.settings import BusSettings
from denizen.changes import Hub
from denizen.deployment.process_metrics import ProcessMetrics
from denizen.deployment.replaying import Runs
from denizen.http.feeds import Feeds
from denizen.http.idempotency import RecentKeys
from denizen.http.limiter import Limiter
from denizen.http.metrics import GatewayMetrics
from denizen.http.passwords import PasswordPool
from denizen.operators.desk import Desk
from denizen.projections.control import Control
from denizen.projections.reading import ReadModels
from denizen.service import UserService
from denizen.service.erasures import Erasures
from denizen.service.keys import KeyRing


class Services(Struct):
    """The parts of one gateway process. `stopping` turns readiness off while it drains.

    `address` is where it listens, `in_flight` counts the requests being answered. Without `reads` there is nothing to
    search, without `changes` nothing to follow, without `desk` no control plane.
    """

    users: UserService
    keys: KeyRing
    passwords: PasswordPool
    limiter: Limiter
    recent_keys: RecentKeys
    metrics: GatewayMetrics
    reads: ReadModels | None = None
    changes: Hub | None = None
    desk: Desk | None = None
    feeds: Feeds = field(default_factory=Feeds)
    control: Control | None = None
    runs: Runs | None = None
    erasures: Erasures | None = None
    process_metrics: ProcessMetrics | None = None
    bus: BusSettings | None = None
    address: str = ""
    stopping: bool = False
    in_flight: int = 0
