"""Ingress v1 matching, written straight from the specification's sentences, slow and plain.

https://kubernetes.io/docs/concepts/services-networking/ingress/, "Path types", "Multiple matches", "Hostname
wildcards", and the API reference of IngressRule.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.route.spec import RouteSpec


def elements(path: str) -> list[str]:
    """ "The list of labels in the path split by the / separator", the trailing slash ignored."""
    labels = path.split("/")[1:]
    while labels and labels[-1] == "":
        labels.pop()
    return labels


def path_matches(rule: RouteSpec, path: str) -> bool:
    """ "Exact: matches the URL path exactly"; "Prefix: every p is an element-wise prefix of the request path"."""
    if rule.path_type == "Exact":
        return rule.path == path
    wanted = elements(rule.path)
    return path.split("/")[1:][: len(wanted)] == wanted


def host_rank(rule: RouteSpec, host: str) -> int | None:
    """ "Precise matches require that the host matches"; "wildcard matches require the host to be equal to the suffix
    of the wildcard rule", for one label; "if no host is specified, the rule applies to all"."""
    if rule.host == "":
        return 2
    if rule.host.startswith("*."):
        labels = host.split(".")
        return 1 if len(labels) > 1 and labels[0] and labels[1:] == rule.host.split(".")[1:] else None
    return 0 if rule.host == host else None


def winner(rules: Sequence[RouteSpec], host: str, path: str) -> RouteSpec | None:
    """ "Precedence will be given first to the longest matching path. If two paths are still equally matched,
    precedence will be given to paths with an exact path type". Of what is still equal, the first."""
    best: tuple[tuple[int, int, int], RouteSpec] | None = None
    for rule in rules:
        rank = host_rank(rule, host)
        if rank is None or not path_matches(rule, path):
            continue
        order = (rank, -len(elements(rule.path)), 0 if rule.path_type == "Exact" else 1)
        if best is None or order < best[0]:
            best = order, rule
    return None if best is None else best[1]
