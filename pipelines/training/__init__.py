"""The protocol, the network and the fit loop."""
