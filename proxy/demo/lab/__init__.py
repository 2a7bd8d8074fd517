"""Network namespaces joined by a switch: where `spanway demo --layers` and the tests of the layers below run."""
