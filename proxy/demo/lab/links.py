"""Makes what a plan names: namespaces, the links between them, addresses, a Linux bridge."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from proxy.demo.lab.commands import entered, no_offload, run
from proxy.demo.lab.plan import Plan, Pod

PREFIX_BITS: Final = 24
PREFIX_BITS6: Final = 64


def make(plan: Plan) -> None:
    """Make all namespaces and links, with addresses, up; bridges and ports of a switch come after.

    Raises `LabError`.
    """
    for namespace in plan.namespaces:
        run("ip", "netns", "add", namespace)
        run("ip", "link", "set", "lo", "up", namespace=namespace)
    offload = plan.kind != "ovs"
    if plan.kind == "veth":
        for backend in plan.backends:
            _direct(plan, backend)
    else:
        for pod in (plan.proxy, *plan.backends):
            _chain(pod, offload=offload)
            _address(plan, pod)
        if plan.trunk is not None:
            first, left, right, second = plan.trunk
            _veth(first, left)
            _veth(right, second)
    for pod in (plan.proxy, *plan.backends):
        for other in plan.backends if pod is plan.proxy else (plan.proxy, *plan.backends):
            if other is not pod and (plan.kind != "veth" or plan.proxy in (pod, other)):
                device = plan.proxy_end(other) if pod is plan.proxy else pod.interface
                _neighbour(pod.namespace, device, other)


def linux_bridge(plan: Plan) -> None:
    """Make the plan's bridges of the kernel's own kind, and put the ports on them."""
    for name in plan.bridges:
        run("ip", "link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        _quiet(name)
        run("ip", "link", "set", name, "up")
    for bridge, port in ports(plan):
        run("ip", "link", "set", port, "master", bridge)
    node_address(plan)


def ports(plan: Plan) -> list[tuple[str, str]]:
    """(bridge, interface) of every port: the proxy's on the first bridge, the backends' on the last."""
    found = [(plan.bridges[0], plan.proxy.port)]
    if plan.trunk is not None:
        found += [(plan.bridges[0], plan.trunk[0]), (plan.bridges[1], plan.trunk[3])]
    return found + [(plan.bridges[-1], pod.port) for pod in plan.backends]


def node_address(plan: Plan) -> None:
    """Give the node its own address on the first bridge, as bridge CNI plugins and Antrea do."""
    if plan.node:
        run("ip", "address", "add", f"{plan.node}/{PREFIX_BITS}", "dev", plan.bridges[0])
        run("ip", "link", "set", plan.bridges[0], "up")


def _chain(pod: Pod, *, offload: bool) -> None:
    """The pod's link to its port: one veth, or two with the box's ends in the middle."""
    far = pod.port if pod.boxed is None else pod.boxed[0]
    _veth(far, pod.interface, namespace=pod.namespace)
    if pod.boxed is not None:
        _veth(pod.boxed[1], pod.port)
    if not offload:
        with entered(pod.namespace):
            no_offload(pod.interface)


def _direct(plan: Plan, backend: Pod) -> None:
    """A link of two ends from the proxy to one backend, each knowing the other's address alone."""
    near, here = plan.proxy_end(backend), plan.proxy.namespace
    if backend.boxed is None:
        _veth(near, backend.interface, here, backend.namespace)
    else:
        _veth(near, backend.boxed[1], here, None)
        _veth(backend.boxed[0], backend.interface, None, backend.namespace)
    for pod, other, device in ((plan.proxy, backend, near), (backend, plan.proxy, backend.interface)):
        where = pod.namespace
        run("ip", "link", "set", device, "address", pod.mac, "up", namespace=where)
        run("ip", "address", "add", pod.address, "peer", f"{other.address}/32", "dev", device, namespace=where)
        peer6 = f"{other.address6}/128"
        run("ip", "-6", "address", "add", pod.address6, "peer", peer6, "dev", device, "nodad", namespace=where)


def _veth(first: str, second: str, first_in: str | None = None, namespace: str | None = None) -> None:
    """A pair of ends, up; an end of the node's own namespace has no address and answers for none."""
    command = ["ip", "link", "add", first, *_at(first_in), "type", "veth", "peer", "name", second, *_at(namespace)]
    run(*command)
    for name, where in ((first, first_in), (second, namespace)):
        if where is None:
            _quiet(name)
        run("ip", "link", "set", name, "up", namespace=where)


def _at(namespace: str | None) -> tuple[str, ...]:
    return () if namespace is None else ("netns", namespace)


def _quiet(interface: str) -> None:
    """An interface through which frames only pass: the node's kernel must not answer for addresses it has elsewhere."""
    Path("/proc/sys/net/ipv4/conf", interface, "arp_ignore").write_text("1", encoding="ascii")
    settings = Path("/proc/sys/net/ipv6/conf", interface)
    if settings.exists():
        (settings / "addr_gen_mode").write_text("1", encoding="ascii")  # none of its own making
        (settings / "accept_ra").write_text("0", encoding="ascii")


def _address(plan: Plan, pod: Pod) -> None:
    where, device = pod.namespace, pod.interface
    run("ip", "link", "set", device, "address", pod.mac, "up", namespace=where)
    run("ip", "address", "add", f"{pod.address}/{PREFIX_BITS}", "dev", device, namespace=where)
    run("ip", "-6", "address", "add", f"{pod.address6}/{PREFIX_BITS6}", "dev", device, "nodad", namespace=where)
    if plan.node and where is not None:
        run("ip", "route", "add", "default", "via", plan.node, namespace=where)


def _neighbour(namespace: str | None, device: str, other: Pod) -> None:
    """What address resolution would find, said at once: a lost ARP frame is a second's wait that no fault asked for."""
    for address in (other.address, other.address6):
        setting = ("lladdr", other.mac, "dev", device, "nud", "permanent")
        run("ip", "neighbour", "replace", address, *setting, namespace=namespace)
