"""Whom to trust: where the certificates of authorities are, for clients of every make.

In this order: SSL_CERT_FILE and SSL_CERT_DIR; REQUESTS_CA_BUNDLE; CURL_CA_BUNDLE; the system's
store, where a company puts its own authority; and certifi's, where the system has none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import sys
from pathlib import Path
from typing import Final, NamedTuple

import certifi

from downloader.errors import ConfigurationError
from downloader.rules.redaction import clean_text

# Where systems have it: Debian, Fedora and RHEL, openSUSE, Alpine and macOS.
_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_FOLDERS: Final = ("/etc/ssl/certs", "/etc/pki/tls/certs")


class Authorities(NamedTuple):
    """Where certificates of authorities are: a file, a folder with names by hash, or both."""

    file: str | None
    folder: str | None
    source: str  # who says so: a variable, the system, certifi


def environment_authorities() -> Authorities:
    """Return whom to trust.

    Raises:
        ConfigurationError: what the environment names cannot be used.

    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        if file:
            _see("SSL_CERT_FILE", file)
        if folder and not any(map(os.path.isdir, folder.split(os.pathsep))):
            raise _unusable("SSL_CERT_DIR", folder, "is no folder")
        return Authorities(
            file or None, folder or None, "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        )
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if named := os.environ.get(variable):
            if Path(named).is_dir():
                return Authorities(None, named, variable)
            _see(variable, named)
            return Authorities(named, None, variable)
    return _of_the_system() or Authorities(certifi.where(), None, "certifi")


@functools.cache
def _of_the_system() -> Authorities | None:
    own = ssl.get_default_verify_paths()
    # What a Python of its own has may know no company; Homebrew's knows the keychain.
    files = [*_FILES, own.openssl_cafile]
    folder = next(filter(os.path.isdir, [*_FOLDERS, own.openssl_capath]), None)
    for file in files[::-1] if sys.platform == "darwin" else files:
        with contextlib.suppress(OSError):  # ssl.SSLError is one
            if _context(file, folder).cert_store_stats()["x509_ca"]:
                return Authorities(file, folder, "the system")
    return None


def _see(variable: str, file: str) -> None:
    try:
        _context(file, None)
    except FileNotFoundError:
        why = "is not there"
    except ssl.SSLError:
        why = "holds no certificates"
    except (OSError, ValueError) as error:
        why = f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    else:
        return
    raise _unusable(variable, file, why)


def _unusable(variable: str, named: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{variable} names {clean_text(named)}, which {why}: point it to a PEM file of the "
        "authorities to trust, or unset it."
    )


def tls_context() -> ssl.SSLContext:
    """Return what TLS is to be: these authorities, TLS 1.2 or later.

    Raises:
        ConfigurationError: what the environment names cannot be used.

    """
    authorities = environment_authorities()
    return _context(authorities.file, authorities.folder)


@functools.lru_cache(maxsize=4)  # to read an authority takes a third of a millisecond
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=file, capath=folder)
