"""`spanway check` and `spanway explain`: what they print, and their exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.admit.host import parse_host
from proxy.admit.target import normal_path
from proxy.control.build import Choices
from proxy.control.check import exit_status, render, survey
from proxy.control.feed import choices_of
from proxy.errors import Fault, SettingsError
from proxy.route import explain as explaining
from proxy.route.match import path_key

if TYPE_CHECKING:
    from proxy.settings import Settings


def check(paths: Sequence[str | Path], ingress_class: str = "") -> int:
    """Print everything that is wrong with manifests; 1 if there is an error, else 0."""
    found = survey([Path(path) for path in paths], (), Choices(ingress_class=ingress_class))
    sys.stdout.write(render(found))
    return exit_status(found.problems)


def explain(settings: Settings, url: str, method: str = "GET", headers: Sequence[str] = ()) -> int:
    """Print which route a request for ``url`` takes and why; 0 if there is one, else 1.

    ``headers`` are ``NAME: VALUE``. Raises `SettingsError` for what is no request.
    """
    if not settings.ingress:
        raise SettingsError("there is nothing to explain it by; name manifests with --ingress PATH")
    scheme, host, path = _request(url)
    fields = [_field(text) for text in headers]
    found = survey(settings.ingress, settings.upstream, choices_of(settings))
    errors = sum(problem.severity == "error" for problem in found.problems)
    if errors:
        some = "1 error, and what it concerns is" if errors == 1 else f"{errors} errors, and what they concern is"
        sys.stderr.write(f"spanway: the manifests have {some} left out here; 'spanway check' tells more\n")
    explanation = explaining.explain(found.table, method, scheme, host, path, fields)
    sys.stdout.write(explaining.render(explanation))
    return 0 if explanation.route is not None else 1


def _request(url: str) -> tuple[str, str, str]:
    """Scheme, host and path in normal form, as the proxy would see them."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("http", "https") or not host:
            raise SettingsError(f"{url!r} is no http or https URL; write http://HOST/PATH")
        parse_host(host.encode("ascii"))
        # A client escapes what a URL may not hold, and path_key does as it would.
        path = normal_path(path_key(parts.path or "/"))
    except UnicodeEncodeError:
        raise SettingsError(f"{url!r}: write the host in its ASCII form (xn--...)") from None
    except ValueError as exc:
        raise SettingsError(f"{url!r} is no URL: {exc}") from None
    except Fault as exc:
        raise SettingsError(f"{url!r} would be answered with {exc.kind.status}: {exc.detail}") from None
    return parts.scheme, host, path.decode("ascii")


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise SettingsError(f"{text!r} is no header field; write 'NAME: VALUE'")
    return name.strip(), value.strip()
