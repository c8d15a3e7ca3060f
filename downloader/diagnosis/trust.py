"""Checks of what the environment says of the ways out: whom to trust, and through which proxy."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from downloader.diagnosis.findings import Check, ok, problem, warning
from downloader.diagnosis.reaching import origin_of, show_proxy
from downloader.errors import ConfigurationError
from downloader.proxies import environment_proxies, shown_entries
from downloader.rules.redaction import clean_text
from downloader.trust import environment_authorities

CERTIFICATES_ADVICE: Final = (
    "point SSL_CERT_FILE to a PEM file of the authorities to trust, or unset it; a proxy that "
    "inspects TLS has an authority of its own"
)
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")


def check_certificates() -> Check:
    """See that there are authorities to trust, where the environment or the system says."""
    try:
        found = environment_authorities()
    except ConfigurationError as error:
        return problem("tls", str(error).partition(": ")[0], CERTIFICATES_ADVICE)
    folders = [Path(one) for one in (found.folder or "").split(os.pathsep) if one]
    named = " and ".join(clean_text(str(one)) for one in (found.file, *folders) if one)
    if found.file is None:
        return _check_folders(folders, named, found.source)
    context = ssl.create_default_context(cafile=found.file)
    number = context.cert_store_stats()["x509_ca"]
    if not number:
        return problem(
            "tls",
            f"{named} ({found.source}) has no certificate of an authority",
            CERTIFICATES_ADVICE,
        )
    return ok("tls", f"{_counted(number)}, of {named} ({found.source})")


def _check_folders(folders: list[Path], named: str, source: str) -> Check:
    try:
        names = [one.name for folder in folders for one in folder.iterdir()]
    except OSError as error:
        return problem(
            "tls",
            f"{source} names {named}, which cannot be read: {error.strerror}",
            "name a folder of certificates, or unset it",
        )
    number = sum(_HASHED_NAME.fullmatch(name) is not None for name in names)
    if not number:
        return problem(
            "tls",
            f"{source} names {named}, in which no certificate has a name that is looked for",
            f"make those names (openssl rehash {named}), or unset it",
        )
    return ok("tls", f"{_counted(number)}, of {named} ({source})")


def _counted(number: int) -> str:
    return "1 authority is trusted" if number == 1 else f"{number} authorities are trusted"


def check_proxy(api_url: str, storage_url: str | None) -> Check:
    """Tell through which proxies the API and the storage are asked."""
    try:
        proxies = environment_proxies()
        proxies.see_that_httpx_can(api_url)
    except ConfigurationError as error:
        said, _, advice = str(error).partition(": ")
        return problem("proxy", said, advice)
    local = urlsplit(api_url).scheme == "http"
    of_api = None if local else proxies.of(api_url)
    of_storage = proxies.of(origin_of(storage_url) if storage_url else "https://storage.invalid")
    if proxies.unreadable:
        return warning(
            "proxy",
            f"of NO_PROXY these entries cannot be understood: {shown_entries(proxies.unreadable)}",
            "write host names, addresses and networks such as 10.0.0.0/8, with commas between",
        )
    if of_api is None and of_storage is None:
        return ok("proxy", "none is used")
    parts = [
        f"the API is asked {_through(of_api)}" + (", as plain http always is" if local else ""),
        f"the storage {_through(of_storage)}",
    ]
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    if excepted:
        parts.append(f"NO_PROXY is {clean_text(excepted, 200)}")
    return ok("proxy", "; ".join(parts))


def _through(proxy: str | None) -> str:
    return "directly" if proxy is None else f"through {show_proxy(proxy)}"
