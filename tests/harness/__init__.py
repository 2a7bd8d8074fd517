"""The black-box harness: everything needed to watch the running proxy from both of its sides.

Nothing here imports `proxy`: what the harness knows of HTTP/1.1 it reads from the RFCs on its own, so that a mistake
in the proxy's parser cannot hide in the tests.

- `wire`: a small strict reader of HTTP/1.1 messages; `feed`: whole, byte by byte, line by line.
- `client`: a raw downstream; `upstream`: a recording, scripted upstream.
- `proxy`: the subprocess; `manifests`: the Kubernetes objects it is given; `certificates`: TLS material.
- `collector`: an OTLP receiver; `prometheus`: the metrics' text; `poll`: bounded waiting.
"""
