"""Streams of items: parameters, queues, sockets, and how a gadget fails safely."""
