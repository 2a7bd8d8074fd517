"""What Kubernetes accepts as a name, a host, a port: its validation, sentence by sentence.

k8s.io/apimachinery/pkg/util/validation and pkg/apis/core/validation. Each function returns what is wrong, "" for
nothing.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME: Final = re.compile(r"[-a-z0-9]+")
_LEADING_ZEROS: Final = re.compile(r"\b0+(?=[0-9])")


def subdomain(value: str) -> str:
    """A DNS subdomain (RFC 1123): object names, class names, hosts."""
    if len(value) > 253:
        return "must be no more than 253 characters"
    if not _SUBDOMAIN.fullmatch(value):
        return "must be lower-case letters, digits, '-' and '.', and begin and end with a letter or digit (RFC 1123)"
    return ""


def label(value: str) -> str:
    """A DNS label (RFC 1123): namespaces and Services (RelaxedServiceNameValidation; before, no leading digit)."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    if not _LABEL.fullmatch(value):
        return "must be lower-case letters, digits and '-', and begin and end with a letter or digit (RFC 1123)"
    return ""


def host(value: str) -> str:
    """A host of an Ingress rule: a DNS subdomain, or ``*.`` before one; no address, no port."""
    if is_address(value):
        return "must be a DNS name, not an IP address"
    if "*" in value:
        if not value.startswith("*.") or subdomain(value[2:]):
            return "a wildcard must be the whole first label, as in *.example.org"
        return ""
    return subdomain(value)


def is_address(value: str) -> bool:
    """Whether it is an IP address, also one with leading zeros (k8s.io/utils/net.ParseIPSloppy)."""
    try:
        ipaddress.ip_address(_LEADING_ZEROS.sub("", value) if "." in value else value)
    except ValueError:
        return False
    return True


def port_name(value: str) -> str:
    """A port's name (IANA_SVC_NAME, RFC 6335)."""
    if len(value) > 15:
        return "must be no more than 15 characters"
    if not _PORT_NAME.fullmatch(value):
        return "must be lower-case letters, digits and '-'"
    if not any(character.isalpha() for character in value):
        return "must contain at least one letter"
    if "--" in value or value[0] == "-" or value[-1] == "-":
        return "must not begin or end with '-' or contain '--'"
    return ""


def port_number(value: int) -> str:
    """A port's number."""
    return "" if 1 <= value <= 65535 else "must be between 1 and 65535"
