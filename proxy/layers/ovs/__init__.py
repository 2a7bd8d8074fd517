"""Open vSwitch asked about itself: its database, its forwarding daemon, the flows and addresses it knows."""
