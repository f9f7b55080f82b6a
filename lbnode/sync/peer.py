"""The session with one peer: greeting, ordered reliable delivery, bulk transfer, liveness. Pure, sans-I/O.

Time is monotonic seconds. The driver calls `receive_datagram`, `handle_timer`, `send_records`, then takes what
`datagrams_to_send` and `next_event` give and wakes up again at `get_timer()`.

Delivery is in order: a record describes a connection's whole state, so an older one must never overwrite a newer.
What the peer has not acknowledged is kept; if that grows past MAX_KEPT the oldest part is given up, the peer sees in
our HELLO that `first` is beyond what it expects, and asks for everything in bulk. So is a peer served that joins,
restarts, or was silent for long. The data plane never waits for any of this.

Records of an epoch that does not count (see lbnode.epochs) are acknowledged and not taken. When some of the same group
count again, because their sender owns it by now, everything is asked for in bulk: what was refused may be missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from lbnode.epochs import Epochs
from lbnode.errors import PeerError
from lbnode.sync.wire import (
    MAX_RANGES,
    Ack,
    Body,
    BulkEnd,
    Datagram,
    Hello,
    OtherVersion,
    Records,
    ReplayWindow,
    decode,
    encode,
    layout_id,
    room_for_records,
)

HELLO_INTERVAL_S = 0.25
SILENT_AFTER_S = 1.5
ACK_DELAY_S = 0.01
RESEND_AFTER_S = 0.1  # without any progress of the acknowledgement
RESEND_PAUSE_S = 0.03  # between two sendings of one datagram: a reordered one is reported missing, but comes
RESEND_BURST = 64
WINDOW = 1024  # datagrams in flight; about 1.4 MB, below the default receive buffer times a few
MAX_KEPT = 32768  # datagrams kept until acknowledged; about 45 MB
MAX_AHEAD = 4096  # out-of-order datagrams the receiver keeps


@dataclass(frozen=True, slots=True)
class RecordsReceived:
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordsRefused:
    """Said once for each reason."""

    group: str
    why: str


@dataclass(frozen=True, slots=True)
class BulkRequested:
    """Send every connection with send_records(), then call finish_bulk(request)."""

    request: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: str
    why: str


Event = RecordsReceived | RecordsRefused | BulkRequested | StateChanged


@dataclass(slots=True)
class _Kept:
    """A datagram that is not acknowledged yet."""

    body: Records | BulkEnd
    queued: float
    sent: float = float("-inf")


class Peer:
    """One peer as seen from this node. `stream` is our random 64-bit number, new at each start, never 0; `epochs` are
    those of this node, the same for all peers."""

    def __init__(
        self, name: str, node: str, key: bytes, stream: int, layout: str, record_size: int, epochs: Epochs
    ) -> None:
        self.name = name
        self.state = "connecting"
        self.problem = ""
        self.sent_records = 0
        self.received_records = 0
        self.refused_records = 0
        self._node = node
        self._key = key
        self._stream = stream
        self._layout = layout_id(layout)
        self._record_size = record_size
        self._epochs = epochs
        self._counter = 0
        self._out: deque[bytes] = deque()
        self._events: deque[Event] = deque()
        # sending
        self._kept: dict[int, _Kept] = {}
        self._first_seq = 1  # kept are exactly the numbers first_seq .. next_seq - 1
        self._next_seq = 1
        self._in_flight_to = 0  # highest sequence number handed to the network
        self._last_progress = 0.0
        self._bulk_served = 0  # the peer's newest bulk request that we began to serve
        # receiving; all of it belongs to one stream of the peer
        self._their_stream = 0
        self._past_streams: set[int] = set()  # a greeting of one of these is a replay
        self._window = ReplayWindow()
        self._established = False
        self._received = 0
        self._ahead: dict[int, Records | BulkEnd] = {}
        self._bulk_request = 0  # number of our newest bulk request
        self._bulk_open = False
        self._refused: dict[str, str] = {}  # groups whose last records were refused, and why
        self._ack_due: float | None = None
        # liveness
        self._heard = float("-inf")
        self._hello_due = 0.0

    @property
    def backlog(self) -> int:
        """Datagrams that are not acknowledged yet; the driver paces a bulk transfer by it."""
        return len(self._kept)

    def lag(self, now: float) -> float:
        """Age in seconds of the oldest record that the peer has not acknowledged."""
        return max(0.0, now - self._kept[self._first_seq].queued) if self._kept else 0.0

    def send_records(self, group: str, records: bytes, now: float) -> None:
        """Queue whole records of one VIP group ("": of none), which are of the epoch that this node's table has now.
        Without a session they are dropped, because a session begins with a bulk transfer."""
        if not self._established:
            return
        label, step = self._epochs.label(group), room_for_records(group) // self._record_size * self._record_size
        for start in range(0, len(records), step):
            self._keep(Records(self._next_seq, group, label, records[start : start + step]), now)
        self.sent_records += len(records) // self._record_size
        self._fill_window(now)

    def finish_bulk(self, request: int, now: float) -> None:
        if self._established:
            self._keep(BulkEnd(self._next_seq, request), now)
            self._fill_window(now)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """PeerError if the datagram is forged, malformed, replayed or of another session; then nothing changed."""
        try:
            datagram = decode(data, self._key)
        except OtherVersion as error:
            if self._established and self.state != "silent":
                raise  # a recording from before the peer's upgrade; or it has gone back, and will be silent
            self._heard = now
            self._refuse(f"the peer {error}: run the same lbnode on both")
            return
        body = datagram.body
        if isinstance(body, Hello):
            self._receive_hello(datagram.stream, datagram.counter, body, now)
            return
        if not self._established or datagram.stream != self._their_stream:
            raise PeerError("a datagram of no established session")
        if not self._window.accept(datagram.counter):
            raise PeerError("replayed datagram")
        self._heard = now
        if isinstance(body, Ack):
            self._receive_ack(body.ack, body.missing, now)
        else:
            self._receive_reliable(body, now)

    def handle_timer(self, now: float) -> None:
        if self._ack_due is not None and now >= self._ack_due:
            self._send_ack()
        if now >= self._hello_due:
            self._send_hello(now)
        if self.state not in ("connecting", "silent") and now - self._heard >= SILENT_AFTER_S:
            self._set_state("silent", f"nothing heard for more than {SILENT_AFTER_S:g} s")
        if self._wants_resend() and now - self._last_progress >= RESEND_AFTER_S:
            self._resend(self._first_seq, self._first_seq + RESEND_BURST - 1, now)
            self._last_progress = now

    def get_timer(self) -> float:
        """When handle_timer wants to be called next, at the latest."""
        times = [self._hello_due]
        if self._ack_due is not None:
            times.append(self._ack_due)
        if self._wants_resend():
            times.append(self._last_progress + RESEND_AFTER_S)
        return min(times)

    def datagrams_to_send(self) -> list[bytes]:
        out, self._out = list(self._out), deque()
        return out

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    # --- receiving -------------------------------------------------------------------------------------------

    def _receive_hello(self, stream: int, counter: int, hello: Hello, now: float) -> None:
        if hello.name != self.name:
            raise PeerError(f"greets as {hello.name!r}, expected {self.name!r}: check [sync] peers")
        if stream in self._past_streams:
            raise PeerError("replayed greeting of an earlier session")
        if stream != self._their_stream:
            if hello.echo != self._stream:
                # A new stream that has not proved to hear us: answer, so that it can, but believe nothing yet.
                self._send_hello(now, echo=stream)
                return
            self._begin(stream, counter, now)
        if not self._window.accept(counter):
            raise PeerError("replayed greeting")
        self._heard = now
        if hello.layout != self._layout or hello.record_size != self._record_size:
            self._refuse("the peer's connection records have another layout: another version of lbnode?")
            return
        if hello.echo != self._stream:
            self._send_hello(now)  # it heard an earlier stream of ours; teach it the present one
            return
        if not self._established:
            self._established = True
            self._send_hello(now)
        if hello.first > self._received + 1:
            # What we miss is gone for good: skip it and fetch everything anew.
            self._received = hello.first - 1
            self._ahead = {seq: body for seq, body in self._ahead.items() if seq > self._received}
            self._request_bulk(now)
            self._deliver_in_order(now)
        self._receive_ack(hello.ack, (), now)
        if hello.next > self._received + 1 and self._ack_due is None:
            self._ack_due = now + ACK_DELAY_S
        if hello.bulk_wanted > self._bulk_served:
            self._bulk_served = hello.bulk_wanted
            self._events.append(BulkRequested(hello.bulk_wanted))
        self._settle_state()

    def _refuse(self, why: str) -> None:
        self._established = False
        self._next_seq += 1  # a gap: should the peer go on with this session, it asks for everything
        self._drop_kept()
        self._set_state("refused", why)

    def _begin(self, stream: int, counter: int, now: float) -> None:
        """The peer (re)started: forget what belonged to its old stream; both sides start with a bulk transfer."""
        self._past_streams.add(self._their_stream)
        self._their_stream = stream
        self._window = ReplayWindow(counter - 1)
        self._established = False
        self._received = 0
        self._ahead = {}
        self._refused = {}
        self._request_bulk(now)
        self._bulk_served = 0
        self._drop_kept()
        self._ack_due = None
        self._heard = now

    def _request_bulk(self, now: float) -> None:
        self._bulk_request += 1
        self._bulk_open = True
        self._hello_due = now

    def _receive_reliable(self, body: Records | BulkEnd, now: float) -> None:
        if isinstance(body, Records) and len(body.data) % self._record_size:
            raise PeerError(f"{len(body.data)} bytes are not whole records of {self._record_size}")
        self._ack_due = self._ack_due if self._ack_due is not None else now + ACK_DELAY_S
        if body.seq <= self._received or body.seq > self._received + MAX_AHEAD:
            return
        self._ahead[body.seq] = body
        self._deliver_in_order(now)
        self._settle_state()

    def _deliver_in_order(self, now: float) -> None:
        while (body := self._ahead.pop(self._received + 1, None)) is not None:
            self._received += 1
            if isinstance(body, Records):
                self._take_or_refuse(body, now)
            elif body.request == self._bulk_request:
                self._bulk_open = False
                self._hello_due = now

    def _take_or_refuse(self, body: Records, now: float) -> None:
        count = len(body.data) // self._record_size
        if why := self._epochs.refusal(body.group, body.label, now):
            self.refused_records += count
            if self._refused.get(body.group) != why:
                self._refused[body.group] = why
                self._events.append(RecordsRefused(body.group, why))
            return
        if self._refused.pop(body.group, ""):
            self._request_bulk(now)
        self._epochs.take(body.group, body.label)
        self.received_records += count
        self._events.append(RecordsReceived(body.data))

    def _settle_state(self) -> None:
        if self._established:
            if self._bulk_open:
                self._set_state("bulk", "receiving all connections of the peer")
            else:
                self._set_state("in-sync", "all connections of the peer are known")

    # --- sending ---------------------------------------------------------------------------------------------

    def _keep(self, body: Records | BulkEnd, now: float) -> None:
        if not self._kept:
            self._last_progress = now
        self._kept[body.seq] = _Kept(body, now)
        self._next_seq += 1
        if len(self._kept) > MAX_KEPT:
            self._drop_kept()
            self._hello_due = now  # tells the peer that `first` moved, so that it asks for everything

    def _drop_kept(self) -> None:
        self._kept.clear()
        self._first_seq = self._next_seq
        self._in_flight_to = self._next_seq - 1

    def _fill_window(self, now: float) -> None:
        seq = max(self._in_flight_to + 1, self._first_seq)
        while seq < self._next_seq and seq < self._first_seq + WINDOW:
            self._send_kept(seq, now)
            self._in_flight_to = seq
            seq += 1

    def _receive_ack(self, ack: int, missing: Iterable[tuple[int, int]], now: float) -> None:
        if ack >= self._next_seq:
            raise PeerError(f"acknowledges {ack}, which was never sent")
        while self._first_seq <= ack:
            del self._kept[self._first_seq]
            self._first_seq += 1
            self._last_progress = now
        for low, high in missing:
            self._resend(low, min(high, low + RESEND_BURST), now)
        self._fill_window(now)

    def _wants_resend(self) -> bool:
        return bool(self._kept) and self._established and self.state != "silent"

    def _resend(self, low: int, high: int, now: float) -> None:
        for seq in range(max(low, self._first_seq), min(high, self._in_flight_to) + 1):
            if now - self._kept[seq].sent >= RESEND_PAUSE_S:
                self._send_kept(seq, now)

    def _send_kept(self, seq: int, now: float) -> None:
        self._kept[seq].sent = now
        self._emit(self._kept[seq].body)

    def _send_ack(self) -> None:
        self._ack_due = None
        missing: list[tuple[int, int]] = []
        expected = self._received + 1
        for seq in sorted(self._ahead):
            if seq > expected:
                missing.append((expected, seq - 1))
            expected = seq + 1
        self._emit(Ack(self._received, tuple(missing[:MAX_RANGES])))

    def _send_hello(self, now: float, echo: int | None = None) -> None:
        hello = Hello(
            echo=self._their_stream if echo is None else echo,
            ack=self._received if echo is None else 0,  # nothing of a stream that is not believed yet
            first=self._first_seq,
            next=self._next_seq,
            bulk_wanted=self._bulk_request if self._bulk_open else 0,
            record_size=self._record_size,
            layout=self._layout,
            name=self._node,
        )
        self._emit(hello)
        self._hello_due = now + HELLO_INTERVAL_S

    def _emit(self, body: Body) -> None:
        self._counter += 1
        self._out.append(encode(Datagram(self._stream, self._counter, body), self._key))

    def _set_state(self, state: str, why: str) -> None:
        self.problem = why if state in ("refused", "silent") else ""
        if state != self.state:
            self.state = state
            self._events.append(StateChanged(state, why))
