"""The layers below HTTP: packets on the wire, the virtual switch and the kernel, joined to each traced attempt."""
