"""Checks of what the environment says of the ways out: whom to trust, and through which proxy."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from downloader.diagnosis.findings import Check, ok, problem
from downloader.diagnosis.reaching import origin_of, show_proxy
from downloader.errors import ConfigurationError
from downloader.http import environment_authorities, environment_proxies
from downloader.rules.redaction import clean_text

CERTIFICATES_ADVICE: Final = (
    "point SSL_CERT_FILE to a PEM file of the authorities to trust, or unset it; a proxy that "
    "inspects TLS has an authority of its own"
)
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")


def check_certificates() -> Check:
    """See that there are authorities to trust, where the environment or certifi says."""
    try:
        found = environment_authorities()
    except ConfigurationError:
        named = clean_text(os.environ.get("SSL_CERT_FILE", ""))
        return problem(
            "tls",
            f"SSL_CERT_FILE names {named}, which cannot be read as certificates",
            CERTIFICATES_ADVICE,
        )
    if found.folder is not None:
        return _check_folder(Path(found.folder))
    named = clean_text(str(found.file))
    source = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "certifi's own"
    try:
        context = ssl.create_default_context(cafile=found.file)
    except OSError:  # ssl.SSLError is one
        number = 0
    else:
        number = context.cert_store_stats()["x509_ca"]
    if not number:
        return problem(
            "tls", f"{named} ({source}) has no certificate of an authority", CERTIFICATES_ADVICE
        )
    return ok("tls", f"{_counted(number)}, of {named} ({source})")


def _check_folder(folder: Path) -> Check:
    try:
        number = sum(_HASHED_NAME.fullmatch(one.name) is not None for one in folder.iterdir())
    except OSError as error:
        return problem(
            "tls",
            f"SSL_CERT_DIR names {clean_text(str(folder))}, which cannot be read: {error.strerror}",
            "name a folder of certificates, or unset it",
        )
    if not number:
        return problem(
            "tls",
            f"SSL_CERT_DIR names {clean_text(str(folder))}, in which no certificate has a name "
            "that is looked for",
            f"make those names (openssl rehash {clean_text(str(folder))}), or unset it",
        )
    return ok("tls", f"{_counted(number)}, of {clean_text(str(folder))} (SSL_CERT_DIR)")


def _counted(number: int) -> str:
    return "1 authority is trusted" if number == 1 else f"{number} authorities are trusted"


def check_proxy(api_url: str, storage_url: str | None) -> Check:
    """Tell through which proxies the API and the storage are asked."""
    try:
        proxies = environment_proxies()
    except ConfigurationError as error:
        said, _, advice = str(error).partition(": ")
        return problem("proxy", said, advice)
    local = urlsplit(api_url).scheme == "http"
    of_api = None if local else proxies.of(api_url)
    of_storage = proxies.of(origin_of(storage_url) if storage_url else "https://storage.invalid")
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
