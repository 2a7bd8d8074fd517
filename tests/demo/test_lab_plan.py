"""Names and addresses of a lab: fit for the kernel, different from each other, and removed by their names."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.lab.plan import KINDS, LONGEST_POD, LONGEST_PREFIX, NETWORK, NETWORK6, plan

names = st.from_regex(rf"[a-z][a-z0-9]{{0,{LONGEST_POD - 1}}}", fullmatch=True).filter(
    lambda name: name not in {"px", "sw", "br"}
)
prefixes = st.from_regex(rf"[a-z][a-z0-9]{{0,{LONGEST_PREFIX - 1}}}", fullmatch=True)
backends = st.lists(names, min_size=1, max_size=5, unique=True).map(tuple)
spots = st.frozensets(st.sampled_from(["proxy", "switch", "backend"]))


@given(prefixes, st.sampled_from(KINDS), backends, spots, st.booleans())
def test_names_fit_and_differ(prefix, kind, backends, boxes, here):
    if kind == "veth":
        boxes &= {"backend"}
    made = plan(prefix, kind, backends, boxes=boxes, proxy_here=here)
    everything = [*made.links, *made.namespaces]
    assert all(len(link.encode()) <= 15 for link in made.links)
    assert len(set(made.links)) == len(made.links)
    assert len(set(made.namespaces)) == len(made.namespaces)
    assert all(name.startswith(f"{prefix}-") for name in everything if name != "ovs-netdev")
    pods = (made.proxy, *made.backends)
    assert len({pod.address for pod in pods} | {made.node}) == len(pods) + 1
    assert len({pod.mac for pod in pods}) == len(pods)
    for pod in pods:
        assert ipaddress.ip_address(pod.address) in NETWORK
        assert ipaddress.ip_address(pod.address6) in NETWORK6


@given(prefixes, st.sampled_from(KINDS), backends, spots, st.booleans())
def test_the_way_to_a_backend_is_whole_and_removed_by_name(prefix, kind, backends, boxes, here):
    if kind == "veth":
        boxes &= {"backend"}
    made = plan(prefix, kind, backends, boxes=boxes, proxy_here=here)
    for pod in made.backends:
        way = made.on_the_way(pod.name)
        assert way[0] == (made.proxy_end(pod), made.proxy.namespace)
        assert way[-1] == (pod.interface, pod.namespace)
        assert len(set(way)) == len(way)
        assert {name for name, namespace in way if namespace is None} <= set(made.links)
        assert len(way) == 2 + 2 * (kind != "veth") + 2 * ("proxy" in boxes) + 4 * ("switch" in boxes) + 2 * (
            "backend" in boxes
        )


def test_an_open_vswitch_lab_with_every_box():
    made = plan("lab", "ovs", ("app",), boxes=frozenset({"proxy", "switch", "backend"}))
    assert [name for name, _ in made.on_the_way("app")] == [
        *("eth0", "lab-px2", "lab-px3", "lab-px1"),
        *("lab-sw0", "lab-sw2", "lab-sw3", "lab-sw1"),
        *("lab-app1", "lab-app3", "lab-app2", "eth0"),
    ]
    assert made.namespaces == ("lab-px", "lab-app")
    assert made.bridges == ("lab-br0", "lab-br1")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("Lab",), "prefix 'Lab'"),
        (("toolong",), "prefix 'toolong'"),
        (("",), "prefix ''"),
        (("lab", "hub"), "kind 'hub'"),
        (("lab", "ovs", ("px",)), "backend 'px'"),
        (("lab", "ovs", ("a-b",)), "backend 'a-b'"),
        (("lab", "ovs", ()), "1 to 32 backends"),
        (("lab", "ovs", ("a", "a")), "different names"),
    ],
)
def test_what_cannot_be_named_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan(*arguments)


def test_a_lab_of_veths_has_no_switch_to_put_a_box_in():
    with pytest.raises(ValueError, match="its box is 'backend'"):
        plan("lab", "veth", boxes=frozenset({"switch"}))


def test_labs_of_different_prefixes_seldom_share_a_network():
    networks = [plan(prefix).network for prefix in ("demo", "join", "wire", "taps", "places", "jaeger")]
    assert all(first != second for first, second in itertools.combinations(networks, 2))
