"""How fast a running provisioner is, and how far that is from what the API server itself can do.

What each figure is:

- A **latency** is the time from sending a request until the last byte of its answer has been read, in ms, as one
  asyncio client sees it on a connection that is open already. The answer is checked after that: not part of it.
- **p50, p95, p99** are by nearest rank: the smallest latency that at least so many of a hundred did not exceed.
  With 50 requests p99 is the slowest.
- A **rate** is good answers per second of a phase, from its first request to its last answer, checks included.
- A request that failed, or answered something else than it should, is an **error**: in no latency, in no rate.
- Each phase is run once a round; what is reported is the median over the rounds of that round's p50, p95, p99 and
  rate. Provisioner and direct take turns, phase by phase, and the one that is first changes with the round.
- **direct** is the floor: the same work by the same client straight to the API server. A create is two PATCHes
  (server-side apply of the Pod, then of the Service), a get two GETs, a list two GETs, a delete two DELETEs, each pair
  one after the other. Nothing is compared before it was made sure that the objects are the same as the service's.
- A **ratio** is the reported figure of the provisioner divided by that of direct, or by that of `GET /health`: more
  than 1 is slower for a latency and faster for a rate.
- **Memory** is the sum of PSS over the process and all that descend from it, in MB of 10^6 bytes; Linux only.

The client shares the machine's processors with what it measures: `GET /health` says what this machine's HTTP is worth.
"""
