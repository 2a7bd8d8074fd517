import pytest

from proxy.admin import labels
from proxy.admin.blame import index
from proxy.trace.tree import assemble
from proxy.trace.view import decode
from tests.admin.spans import batch, checkout, plain, request, span


def tree(*batches):
    (trace,) = assemble(decode(batches))
    return trace


def only(service, name="GET", kind="INTERNAL", **more):
    return tree(batch(service, span(1, 0, name, 0, 10, kind, **more))).nodes[0]


def test_a_call_says_who_took_it():
    trace = tree(*checkout())
    by_id = index(trace)
    assert [labels.label(node, by_id) for node in trace.nodes] == [
        "POST /",
        "POST → shop",
        "POST /checkout",
        "GET → cart",
        "GET /api/cart/{user}",
        "POST → stock",
        "POST /api/stock/{item}/reservations",
        "wait for shelf lock",
        "UPDATE item",
        "POST → stock",
        "POST /api/stock/{item}/reservations",
        "UPDATE item",
        "charge card",
    ]


def test_a_call_that_nobody_reports_says_where_it_went():
    trace = tree(plain())
    assert labels.label(trace.nodes[1], index(trace)) == "GET → 127.0.0.1:3000"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (request("GET", 200, url__path="/a", server__address="h.test"), "GET h.test/a"),
        (request("GET", 200, url__path="/a", url__query="q=1"), "GET /a?q=1"),
        ({}, "GET"),
    ],
)
def test_titles(values, text):
    assert labels.title(only("spanway", kind="SERVER", **values).span) == text


def test_text_from_elsewhere_cannot_move_the_cursor():
    evil = "a\x1b[2Jb\r\nc\x07\u202ed\t"
    node = only("spanway", evil, "SERVER", **request("GET", 200, url__path=f"/{evil}", server__address=evil))
    shown = labels.label(node, {}) + labels.title(node.span) + labels.clean(evil)
    assert shown.isprintable()
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("values", "status", "severity"),
    [
        (request("GET", 200), "200", ""),
        (request("GET", 404), "404", "warning"),
        (request("GET", 503), "503", "error"),
        (request("GET", 404, error="404"), "404", "error"),
        ({"error": "connect_failed"}, "ERR", "error"),
        ({"spanway__outcome": "client_gone"}, "left", ""),
        ({}, "", ""),
    ],
)
def test_status_and_severity(values, status, severity):
    span_view = only("spanway", kind="CLIENT", **values).span
    assert (labels.status(span_view), labels.severity(span_view)) == (status, severity)


def test_phases_are_those_that_happened_in_their_order():
    times = {f"spanway__{name}__us": us for name, us in (("relay", 88), ("tls", 1500), ("connect", 212), ("wait", 0))}
    node = only("spanway", kind="CLIENT", **times, http__request__resend_count=1, spanway__reused=False)
    assert labels.phases(node, {}) == "retry 1 · connect 212 µs · tls 1.50 ms · wait <1 µs · relay 88 µs"
    server = only("spanway", kind="SERVER", spanway__admit__us=9, spanway__self__us=173, spanway__loop_lag__us=9000)
    assert labels.phases(server, {}) == "admit 9 µs · self 173 µs · loop lag 9.00 ms"
    calm = only("spanway", kind="SERVER", spanway__self__us=173, spanway__loop_lag__us=41)
    assert labels.phases(calm, {}) == "self 173 µs"


def test_applications_have_no_phases_whatever_they_claim():
    assert labels.phases(only("shop", kind="SERVER", spanway__self__us=1), {}) == ""


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"exception": ("demo.shop.PaymentFailed", "no answer")}, "PaymentFailed: no answer"),
        ({"error": "connect_timeout"}, "connect_timeout: The upstream did not accept in time."),
        ({"error": "own_word"}, "own_word"),
        ({"error": "500"}, ""),
        ({}, ""),
    ],
)
def test_failures_in_words(values, text):
    assert labels.failure(only("spanway", **values).span) == text
