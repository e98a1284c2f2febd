"""The benchmark suite: lastcall against a C server, Nchan, a bare `send()` loop and itself. `python -m bench`.

How it measures, the same for everyone:

* One process and one thread per server, alone on the first core; the load generator (C, epoll, one thread) on the last;
  PostgreSQL where the kernel puts it. Loopback, TCP_NODELAY, 200 bytes of `data`.
* A publisher is a closed loop: it sends its next request as soon as the last one was answered. Each server answers
  when it has made the event's place in the order final: lastcall after COMMIT, Nchan and the C server after they have
  written to everyone (in one thread, answering before that does not change how many events they can take).
* The generator checks that every listener got every event exactly once and all in the same order. A run in which one
  did not, or in which `/metrics` does not show every connection handed over, is no measurement: the suite fails.
* Each round measures every case once, so that a machine whose speed drifts drifts for all. A row is the ratio of the
  medians over all rounds.
"""
