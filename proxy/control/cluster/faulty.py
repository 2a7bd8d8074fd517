"""What cannot be followed, said in few words: an API server that is away is one problem, not one for each watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.faults import Forbidden
from proxy.control.cluster.kinds import INGRESS_CLASS
from proxy.control.problem import Problem

if TYPE_CHECKING:
    from proxy.control.cluster.faults import ApiFault
    from proxy.control.cluster.kinds import Scope

SINGLY: Final = 5  # refused objects of a kind that are told one by one
_STAYS: Final = "what is known stays in use"


def faulty(faults: Mapping[Scope, ApiFault]) -> list[Problem]:
    """The problems that these faults are, in the order of their scopes.

    The texts hold no numbers that change while the fault lasts, so that each is told once.
    """
    groups: dict[tuple[str, str], list[tuple[Scope, ApiFault]]] = {}
    for scope, fault in faults.items():
        # A refusal is about a kind; whatever else goes wrong is the server's, or the network's.
        about = scope.resource.title if isinstance(fault, Forbidden) else ""
        groups.setdefault((type(fault).__name__, about), []).append((scope, fault))
    found: list[Problem] = []
    for members in groups.values():
        scope, fault = members[0]
        if not isinstance(fault, Forbidden):
            message = f"the API server is not followed: {fault.message}"
            found.append(Problem("warning", f"{message}; {_STAYS}", "it is asked again"))
        elif len(members) <= SINGLY:
            found += [_refused(scope, fault) for scope, fault in members]
        else:
            message = f"more than {SINGLY} {scope.resource.title} may not be read, such as {scope}: {fault.message}"
            found.append(Problem("warning", f"{message}; {_STAYS}", f"grant list and watch on {scope.resource.title}"))
    return found


def _refused(scope: Scope, fault: ApiFault) -> Problem:
    stays = _STAYS
    if scope.resource is INGRESS_CLASS:
        stays = "the class counts by its name, and there is no default class"
    return Problem("warning", f"{fault}; {stays}", f"grant list and watch on {scope}")
