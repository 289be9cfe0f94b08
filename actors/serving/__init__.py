"""The parts of the server behind `actors/server.py`; no Ray here.

errors      what is refused, and how it is said
replies     answers in OpenAI's shape, whole and in chunks
media       what requests bring: fetched, decoded in processes that can be killed, kept for the next question
tokens      who may ask, and how much
guard       refuses before a route is reached
adapters    whether an adapter belongs to the base, and which one is the champion
schemas     how large a JSON schema may be
metrics     figures for Prometheus
proxy       what Ray Serve's own proxy holds of a request, and says when a replica is lost
loopback    keeps replicas off the network where Ray is on this machine alone
"""
