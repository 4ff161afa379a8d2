"""How a call gets from a program to the cluster and back, for every flavour of client.

From the caller to the wire: ``context`` a client's cluster, namespace and time · ``engine`` reads,
writes and streams, with what it has in a process in ``runtime`` · ``pending`` and ``session``
writes under a number · ``copies`` one call on whichever node, by its deadline · ``answer`` what a
node said, ``details`` of it · ``pool`` and ``endpoint`` whom to ask · ``pipeline`` many calls on
one stream, ``stream`` answers in parts · ``rpc`` gRPC on ``http2``, with ``h2_client`` · ``loop``
the one thread that all of this runs on · ``task`` coroutines on it · ``life`` and ``attach`` leases
as their holders count them · ``deadline`` and ``boottime`` clocks · ``calls`` the wire calls by
name.

Two things are its own on purpose. gRPC, on the library h2: grpcio cannot be used on both sides of a
fork. And the coroutines: what is written once as ``async def`` here is waited for by threads,
asyncio and Twisted alike, so it belongs to none of their loops.
"""
