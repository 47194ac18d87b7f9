"""What the gateway answers where it has no fresh data: which status each error means."""

from __future__ import annotations

from typing import Final

from mdtool.adapters.aggregator import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.adapters.book_services import ServiceAwayError, ServiceSilentError
from mdtool.services.gateway.limits import LimitError
from mdtool.services.gateway.origins import ForeignOriginError
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.upgrade import UpgradeRequiredError
from mdtool.services.http.answers import Statuses
from mdtool.services.http.bodies import BodyError

STALE_HEADERS: Final = {"Warning": '110 mdtool "Response is Stale"'}
STATUSES: Final[Statuses] = {
    ParameterError: (400, "bad_parameter"),
    BodyError: (400, "bad_body"),
    RefusedError: (400, "bad_parameter"),
    ForeignOriginError: (403, "foreign_origin"),
    UpgradeRequiredError: (426, "upgrade_required"),
    LimitError: (429, "too_many_requests"),
    UnknownSymbolError: (404, "not_found"),
    UnavailableError: (503, "unavailable"),
    ServiceAwayError: (503, "unavailable"),
    UnansweredError: (504, "timeout"),
    ServiceSilentError: (504, "timeout"),
}
