"""How each command is called, in words for its help."""

from __future__ import annotations

from typing import Final

USAGES: Final = {
    "serve": "--ingress PATH ... [--upstream SERVICE=HOST:PORT ...] [FLAG ...]",
    "controller": "[--kubeconfig FILE] [--watch-namespace NS] [--publish-service NS/NAME] [FLAG ...]",
    "dev": "[HOST[/PATH]=]URL ... [FLAG ...]",
    "demo": "[--for SECONDS] [--layers [--fault FAULT]] [FLAG ...]",
    "wire": "--otlp URL [--interfaces auto|NAME,..] [--places FILE] [--ports auto|A-B|all] [FLAG ...]",
    "apply": "-f PATH ... [--trace] [--controller URL ...] [--force-conflicts] [--kubeconfig FILE] [-n NAMESPACE]",
    "layers": "(--from FILE | --last TIME [--admin URL]) [--json]",
    "check": "PATH ... [--ingress-class NAME]",
    "explain": "URL --ingress PATH ... [-X METHOD] [-H 'NAME: VALUE'] [FLAG ...]",
}
EXAMPLES: Final = {
    "serve": """\
examples:
  spanway serve --ingress manifests/ --upstream default/shop:80=127.0.0.1:3000
  spanway serve --ingress manifests/ --http 8080 --https 8443 --workers auto --otlp http://collector:4317""",
    "controller": """\
examples:
  spanway controller --publish-service spanway/spanway --otlp http://collector.observability:4317
  spanway controller --kubeconfig ~/.kube/config --watch-namespace shop --upstream shop/cart=127.0.0.1:3000""",
    "dev": """\
examples:
  spanway dev shop.localhost=http://127.0.0.1:3000 shop.localhost/api=http://127.0.0.1:4000
  spanway dev http://127.0.0.1:3000""",
    "demo": """\
examples:
  spanway demo --for 20
  sudo spanway demo --layers --fault switch-stall
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 spanway demo""",
    "wire": """\
examples:
  spanway wire --otlp http://collector:4317
  spanway wire --interfaces veth-proxy,veth-shop --otlp http://127.0.0.1:4318""",
    "apply": """\
examples:
  spanway apply -f shop.yaml --trace --controller http://127.0.0.1:9901
  kubectl -n spanway port-forward deploy/spanway 9901 & spanway apply -f manifests/ --trace""",
    "layers": """\
examples:
  spanway layers --last 10m
  spanway layers --from traces.json --json""",
    "check": """\
examples:
  spanway check manifests/ ingress.yaml""",
    "explain": """\
examples:
  spanway explain http://shop.example.org/api/items --ingress manifests/
  spanway explain https://shop.example.org/ --ingress manifests/ -X POST -H 'X-User: anna'""",
}

# What `spanway demo --layers` can do to its network, the default first.
FAULTS: Final = (
    "none",
    "slow-app",
    "slow-link",
    "switch-stall",
    "loss",
    "proxy-stall",
    "backend-not-reading",
)
