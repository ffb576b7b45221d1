"""Where a sequence lives: its state is in one replica, and every worker must know in which."""

from collections import OrderedDict
from hashlib import blake2b

from gateway.errors import Unavailable
from gateway.ports import Sequence
from gateway.upstream.pool import Pool
from gateway.upstream.replica import Replica


class SequenceHomes:
    """By rendezvous hashing: without a word between them workers agree, and a replica that comes or goes moves few.

    A sequence that begins while its replica is away goes to the next in its order, which only this worker remembers.

    Args:
        max_moved: Sequences remembered; past it the oldest are forgotten.
    """

    def __init__(self, pool: Pool, max_moved: int) -> None:
        self._pool = pool
        self._max_moved = max_moved
        self._moved: OrderedDict[str, Replica] = OrderedDict()

    def home(self, sequence: Sequence, model: str, version: str) -> Replica:
        """The replica of a sequence; chosen anew where it begins.

        Raises:
            Unavailable: It is away, and the state is lost.
        """
        order = sorted(self._pool.members, key=lambda replica: _rank(sequence.name, replica.address), reverse=True)
        usable = [replica for replica in order if self._pool.can_serve(replica, model, version)]
        if sequence.starts:
            self._moved.pop(sequence.name, None)
            if usable and usable[0] is not order[0]:
                self._remember(sequence.name, usable[0])
            chosen = usable[:1]
        else:
            home = self._moved.get(sequence.name) or order[0]
            chosen = [replica for replica in usable if replica is home]
        if not chosen:
            raise Unavailable("the inference server that holds the sequence is away; begin the sequence again")
        return chosen[0]

    def _remember(self, name: str, replica: Replica) -> None:
        self._moved[name] = replica
        if len(self._moved) > self._max_moved:
            self._moved.popitem(last=False)


def _rank(sequence: str, address: str) -> bytes:
    return blake2b(f"{address} {sequence}".encode(), digest_size=8).digest()
