"""Cuts a master off from the cluster's nodes: for ``master.cfg`` files of tests.

While a file exists, nothing that the process sends to a node arrives, nothing of theirs comes in,
and no new connection is made: what a broken network does, and without being told.
"""

from __future__ import annotations

import errno
import os
import socket

CUT = "cut-off"


def install(directory, endpoints):
    """Makes sockets to the endpoints look for the file, once in a process."""
    if hasattr(socket.socket, "holdfast_is_cut"):
        return
    path = os.path.join(directory, CUT)
    ports = {int(endpoint.rpartition(":")[2]) for endpoint in endpoints.split(",")}
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    send, recv = socket.socket.send, socket.socket.recv

    def is_cut(port):
        return port in ports and os.path.exists(path)

    def peer(sock):
        if sock.family != socket.AF_INET:
            return None
        try:
            return sock.getpeername()[1]
        except OSError:
            return None

    def cut_connect(self, address):
        if is_cut(address[1]):
            raise OSError(errno.EHOSTUNREACH, "cut off")
        return connect(self, address)

    def cut_connect_ex(self, address):
        return errno.EHOSTUNREACH if is_cut(address[1]) else connect_ex(self, address)

    def cut_send(self, data, *flags):
        return len(data) if is_cut(peer(self)) else send(self, data, *flags)

    def cut_recv(self, size, *flags):
        received = recv(self, size, *flags)
        if is_cut(peer(self)):
            raise BlockingIOError(errno.EAGAIN, "cut off")
        return received

    socket.socket.connect, socket.socket.connect_ex = cut_connect, cut_connect_ex
    socket.socket.send, socket.socket.recv = cut_send, cut_recv
    socket.socket.holdfast_is_cut = is_cut
