"""Checks of who is asked: the API with its key and its clock, and the storage."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from downloader.camb.client import ApiClient, Reply
from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.certificates import CERTIFICATE, connection, why_untrusted
from downloader.diagnosis.findings import Check, ok, problem, warning
from downloader.diagnosis.reaching import origin_of, show_proxy, within
from downloader.diagnosis.trust import CERTIFICATES_ADVICE
from downloader.errors import ConfigurationError
from downloader.http import words_of
from downloader.proxies import environment_proxies
from downloader.rules.answers import Blocked, Forbidden, Judgement, RetryLater, Suspect
from downloader.rules.batching import Batch
from downloader.rules.redaction import clean_text
from downloader.trust import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from downloader.rules.states import RunKey

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
_TOGETHER_SECONDS: Final = CONNECT_SECONDS + ANSWER_SECONDS

_NEVER_ISSUED: Final = 2**31 - 1
"""A run id that can be asked for where none of ours is known: no run has it for years to come."""

_OFFSET_SECONDS: Final = 5.0


class Key(NamedTuple):
    """The API key and the place that it is in, with what is wrong with that place."""

    key: str | None
    place: str | None
    trouble: str | None = None
    readers_warning: str | None = None


def check_api(
    api_url: str, key: Key, known: RunKey | None, *, nothing_found: bool = False
) -> Iterator[Check]:
    """Ask the API for one run's result, which changes nothing and costs nothing.

    `known` is a run that was saved before, and so is one of ours; `nothing_found` says that `run`
    got 404 for whatever it asked. Yields what is found of the key, of the API and of the clock.
    """
    if key.key is None:
        yield _no_key(key)
        yield ok("api", "not asked, without a key")
        yield ok("clock", "not known: the API was not asked")
        return
    run_type, run_id = known or (DEFAULT_RUN_TYPE, _NEVER_ISSUED)
    batch = Batch(run_type, (run_id,))
    try:
        reply = _ask(api_url, key.key, batch)
    except ConfigurationError as error:  # the checks of TLS and proxy tell what is wrong
        yield ok("api_key", f"from {key.place}; not tried")
        yield problem("api", "cannot be asked as things are set", str(error))
        yield ok("clock", "not known: the API was not asked")
        return
    yield _judge_key(key, reply, known=known)
    if nothing_found and reply.status == 404:
        yield problem(
            "api",
            f"{clean_text(api_url)} has nothing of what was asked for (404), runs in batches too",
            "check --api-url: it may be another service's, or lack a part of its path; then "
            "whether these runs are of this account",
        )
    else:
        yield _judge_api(api_url, reply, known=known)
    yield _judge_clock(reply.clock_offset)


def _ask(api_url: str, key: str, batch: Batch) -> Reply:
    client = ApiClient(api_url, key, connect_seconds=CONNECT_SECONDS, answer_seconds=ANSWER_SECONDS)
    try:
        return within(_TOGETHER_SECONDS, lambda: client.ask(batch))
    except TimeoutError:  # a name that is looked up has no time limit of its own
        host = urlsplit(api_url).hostname
        said = f"The API at {host} cannot be reached: no answer in {_TOGETHER_SECONDS:g} seconds."
        return Reply(RetryLater("api_unreachable", said))
    finally:
        client.close()


def _no_key(key: Key) -> Check:
    advice = (
        "set CAMB_API_KEY, or CAMB_API_KEY_FILE to the path of a file with it (the simulator "
        "takes any)"
    )
    if key.trouble is not None:
        return problem("api_key", key.trouble.rstrip("."), advice)
    return problem("api_key", "there is none", advice)


def _judge_key(key: Key, reply: Reply, *, known: RunKey | None) -> Check:
    judgement, place = reply.judgement, f"from {key.place}"
    if isinstance(judgement, Blocked):
        if judgement.reason == "payment_required":
            return problem(
                "api_key", f"{place}; {_lower(judgement)}", "see to the account at the service"
            )
        return problem(
            "api_key",
            f"{place}; {_lower(judgement)}",
            "take a key that is valid from the service's API settings, and check that it is whole",
        )
    if isinstance(judgement, Forbidden):
        other = "" if known else "; it may also be that the service forbids a run that is not there"
        return problem(
            "api_key",
            f"{place}; {_lower(judgement)}{other}",
            "check that the key is of the account that the runs are of",
        )
    if _is_no_answer(reply):
        said = f"{place}; whether it is accepted is not known"
        # A service that throttles has not refused it.
        throttled = isinstance(judgement, RetryLater) and judgement.error_code == "throttled"
        said = f"{place}; not refused" if throttled else said
    else:
        said = f"{place}; not refused" if reply.status == 404 else f"{place}; accepted"
    if key.readers_warning is not None:
        readers, _, advice = key.readers_warning.rpartition(": ")
        return warning("api_key", f"{said}; but {readers}", advice)
    return ok("api_key", said)


def _is_no_answer(reply: Reply) -> bool:
    """Return whether the API has said nothing of what it was asked."""
    refused = isinstance(reply.judgement, Suspect) and reply.judgement.status >= 500
    return refused or isinstance(reply.judgement, RetryLater)


def _judge_api(api_url: str, reply: Reply, *, known: RunKey | None) -> Check:
    judgement, where = reply.judgement, clean_text(api_url)
    if not isinstance(judgement, RetryLater | Suspect) or not _is_no_answer(reply):
        if reply.status == 404 and known is not None:
            return warning(
                "api",
                f"{where} answers, but does not know run {known.run_id}, which was saved (404)",
                "check --api-url: it may be another service's, or lack a part of its path",
            )
        more = ", as it would where the path is wrong, too" if reply.status == 404 else ""
        return ok("api", f"{where} answers ({reply.status}{more})")
    if judgement.error_code in ("api_unreachable", CERTIFICATE):
        return problem("api", _sentence(judgement), _advice_on(judgement.error_code, api_url))
    if judgement.error_code == "throttled":
        return ok("api", f"{where} answers, and throttles us now (429): --api-rate asks for less")
    if judgement.error_code in {"unexpected_redirect", "unreadable_answer", "unexpected_status"}:
        return problem(
            "api", _sentence(judgement), f"check --api-url ({where}): this is not the API's answer"
        )
    return warning(
        "api", _sentence(judgement), "wait: `downloader run` tries again by itself, later and later"
    )


def _advice_on(error_code: str, api_url: str) -> str:
    if error_code == CERTIFICATE:
        return CERTIFICATES_ADVICE
    if urlsplit(api_url).scheme == "https":
        proxy = environment_proxies().of(api_url)
        if proxy is not None:
            return (
                f"it was asked through the proxy {show_proxy(proxy)}: check HTTPS_PROXY, its user "
                "and password, and NO_PROXY"
            )
    return "check the network, its firewall and proxy (HTTPS_PROXY), and --api-url"


def _judge_clock(offset: timedelta | None) -> Check:
    if offset is None:
        return ok("clock", "not known: no answer told the time")
    seconds = -offset.total_seconds()  # ours less theirs
    if abs(seconds) <= _OFFSET_SECONDS:
        return ok("clock", f"within {_OFFSET_SECONDS:g} seconds of the API's")
    side = "ahead of" if seconds > 0 else "behind"
    return warning(
        "clock",
        f"{abs(seconds):,.0f} seconds {side} the API's: times in the database and the log are "
        "wrong, and certificates may be taken for expired; that URLs expire is reckoned with the "
        "difference",
        "have the system set its clock (NTP), such as by `timedatectl set-ntp true`",
    )


def check_storage(url: str | None) -> Check:
    """Connect to where a URL leads, and no more: it is neither asked for nor shown."""
    if url is None:
        return ok("storage", "not known before a run is ready: only its URL tells where it is")
    origin = origin_of(url)
    try:
        proxy = environment_proxies().of(origin)
        through = "" if proxy is None else f" through {show_proxy(proxy)}"
        context = tls_context()
    except ConfigurationError:
        return ok("storage", "not tried: the settings of TLS or proxy cannot be used")
    host = clean_text(origin.partition("://")[2])
    advice = "check the network, its firewall and proxy: the storage is another host than the API"
    try:
        within(_TOGETHER_SECONDS, lambda: _connect(origin, proxy, context))
    except TimeoutError:
        said = f"cannot be reached{through}: no connection in {CONNECT_SECONDS:g} seconds"
    except ssl.SSLCertVerificationError:
        said = f"cannot be trusted: {why_untrusted(origin, proxy)}"
        advice = CERTIFICATES_ADVICE
    except (OSError, ValueError) as error:  # ValueError: a host or port that is none
        said = f"cannot be reached{through}: {clean_text(words_of(error))}"
    else:
        tls = "" if origin.startswith("http:") else ", by TLS"
        return ok("storage", f"{host} can be reached{through}{tls}")
    return problem("storage", f"{host} {said}", advice)


def _connect(origin: str, proxy: str | None, context: ssl.SSLContext) -> None:
    with connection(origin, proxy, context, timeout_seconds=CONNECT_SECONDS):
        pass


def _sentence(judgement: Judgement) -> str:
    return str(getattr(judgement, "message", "")).rstrip(".")


def _lower(judgement: Blocked | Forbidden) -> str:
    said = _sentence(judgement)
    return said[:1].lower() + said[1:]
