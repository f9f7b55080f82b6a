"""The VRRPv3 state machine of one virtual router (RFC 9568 section 6.4), sans I/O. Pure.

Times are integer nanoseconds of one monotonic clock, given by the caller. Inputs: start, receive_datagram,
handle_timer, reconfigure, handover, stop. Outputs: `get_timer` and the events of `next_event`. Datagrams are events
too (Send), because their order among the others is part of the protocol: at takeover the advertisement goes out, then
the addresses come, then they are announced; at release the addresses go first.

What it adds to the RFC, and why (field evidence: keepalived issues 166, 1884, 2066):
- an Active that advertised nothing for 2.5 intervals was not running (paused, starved): a backup may have taken over
  meanwhile, so it steps down and listens before it does anything else;
- a Backup whose timer is served more than an interval late did not listen either: it waits one interval more;
- an Active that yields says so with one last advertisement, and whoever stays Active after meeting another one
  announces its addresses again: else the loser's gratuitous ARP may be the last that clients heard;
- a Backup that preempts does so right after an advertisement that came in time, not when a timer runs out: an Active
  that is paused just then could not give way, while its kernel goes on serving until its lease ends. It serves when the
  other has yielded, or after a moment if that one says nothing (keepalived): so they never serve both;
- the best of the remaining members takes over a released group without waiting for Skew_Time: nobody is better;
- a release by somebody else than the Active we follow is ignored: packets of two senders may change their order.

What other ways tell (heartbeats, the gateway, etcd) comes in as arguments, see `receive` and `handle_timer`; without
them this is VRRP alone.

A group with addresses of both families has one machine: the first family (that of `source`) carries the election, and
what is heard in the second counts only while the first is silent. Else one node would look like two senders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from lbnode.election.announcements import Announcements
from lbnode.election.events import FOREVER, Changed, Claim, Event, Input, Lease, Send, Withdraw
from lbnode.election.packet import RELEASE_PRIORITY, Advert, parse_ipv4
from lbnode.election.router import CENTISECOND, MILLISECOND, VirtualRouter
from lbnode.model import Address, VrrpState

YIELD_WITHIN = 5 * MILLISECOND  # for an Active that is preempted to take its addresses off; keepalived needs about 1 ms


class Machine:
    def __init__(self, router: VirtualRouter) -> None:
        self.router = router
        self.state = VrrpState.INITIALIZE
        self.active_address: Address | None = None  # the current Active, when it is another node
        self.alarm = ""  # what the last advertisement says that does not fit our configuration
        self.epoch = 0  # of our ownership in the shared store, once it is known there; each takeover begins with 0
        self.due = 0  # when the advertisement that is sent now should have left; 0 = it has no schedule
        self.refused = ""  # why we stay Backup although nobody is heard
        self.name_of: Callable[[Address], str] = str  # what people call the node with this VRRP address
        self._first_heard_at: int | None = None  # an advertisement in the first family
        self._active_interval = router.interval  # Active_Adver_Interval, ns
        self._active_priority = 0  # of the Active we follow
        self._down_at = 0  # Active_Down_Timer, while Backup
        self._down_reason = ""
        self._heard_at = 0  # the last advertisement of the Active we follow
        self._preempt_at = 0  # until then somebody with a higher claim may speak up
        self._heard_out = False  # a late Active_Down_Timer was prolonged once already
        self._adver_at = 0  # Adver_Timer, while Active
        self._sent_at = 0  # our last advertisement
        self._serve_at = FOREVER  # while the Active that we preempt yields: when we do not wait for it any longer
        self._announcements = Announcements()
        self._degraded = False  # the Active we follow has lowered its priority
        self._not_before = 0  # startup_delay
        self._yielded_to: tuple[Address | None, int] = None, 0  # whom we gave way to last, and when
        self._designated, self._designated_until = False, 0  # by the Active, as its successor
        self._gave_way = False  # after a handover: do not preempt whoever took over
        self._events: deque[Event] = deque()

    # --- inputs and outputs ---------------------------------------------------------------------------------

    def start(self, now: int, reason: str = "election started") -> None:
        self._dispatch(Input.START, now, reason)

    def resume(self, now: int, reason: str, sent_at: int, dark_after: int | None = None) -> None:
        """Start as Active: the addresses are here, and whoever advertised last, at `sent_at`, has stepped aside.

        As Backup if that was too long ago: a peer may have taken over. `dark_after`: of that one, whose interval may
        have been another; the peers have heard of no other yet.
        """
        dark = self.router.peers and now - sent_at > (dark_after or self.router.dark_after)
        self._dispatch(Input.START if dark else Input.RESUME, now, reason)

    @property
    def serving(self) -> bool:
        """Active, and the addresses belong on their interfaces: whom we preempted has yielded."""
        return self.state is VrrpState.ACTIVE and self._serve_at == FOREVER

    @property
    def sent_at(self) -> int:
        """When the last advertisement was sent."""
        return self._sent_at

    def stop(self, now: int, reason: str) -> None:
        """Leave the election: addresses off, then priority 0. `start` may follow."""
        self._dispatch(Input.STOP, now, reason)

    def handover(self, now: int) -> None:
        """Give the Active role to a peer and stay as Backup. Without effect when not Active or sole member."""
        if self.router.peers:
            self._dispatch(Input.HANDOVER, now, "handed over on request")

    def designate(self, ours: bool, now: int) -> None:
        """The Active is about to hand over, and has named its successor: this node, or another one."""
        self._designated, self._designated_until = ours, now + 2 * self._active_interval
        if self.state is VrrpState.BACKUP and self._down_reason.startswith("released by"):  # that overtook this
            self._await_release(now, self._down_reason)

    def yielded(self, source: Address, now: int) -> None:
        """Whom we follow says that it gave way to another one, who will advertise at once: or it gave way to us, or to
        one that gave way to it meanwhile, and nobody is Active. If we gave way to it just now, it did so to us: each
        compared what it knew, one the priorities and the other the epochs. That is as good as a release."""
        if self.state is VrrpState.BACKUP and self.active_address == source:
            self.active_address, reason = None, f"{self.name_of(source)} gave way, and nobody was heard since"
            crossed = self._yielded_to[0] == source and now - self._yielded_to[1] <= self._active_interval
            self._arm_down(now, self._skew_time() + (0 if crossed else self._active_interval), reason)

    def fence(self, now: int, reason: str) -> None:
        """Give the Active role up because of what other ways than VRRP tell. Without effect when not Active."""
        self._dispatch(Input.FENCED, now, reason)

    def receive_datagram(self, packet: bytes, now: int) -> None:
        """An IPv4 packet with its header. Raises packet.Rejected when it is invalid; then no state has changed."""
        self.receive(parse_ipv4(packet, self.router.vrid, self.router.source), now)

    def receive(self, advert: Advert, now: int, *, epoch: int = 0, deaf: bool = False, degraded: bool = False) -> None:
        """A valid advertisement of this virtual router, of either family.

        `epoch`: that of the sender's ownership, 0 = not known. `deaf`: the sender does not hear us, though we hear it:
        so only we can end it that both are Active. `degraded`: the sender has lowered its priority, since something
        that it tracks fails: a Backup with a higher one preempts, also where it would not otherwise.
        """
        if self.state is VrrpState.INITIALIZE:
            return
        self._step_down_if_dark(now)
        if advert.source.version == self.router.source.version:
            self._first_heard_at = now
        elif self._first_heard_at is not None and now - self._first_heard_at < 2 * self._active_interval:
            return
        if advert.priority != RELEASE_PRIORITY:
            self.alarm = self.router.mismatch(advert)
        self._degraded = degraded
        kind, name = self.router.classify(advert), self.name_of(advert.source)
        reason = f"priority {advert.priority} from {name}"
        if self.state is VrrpState.ACTIVE and kind is not Input.RELEASE:
            if epoch and self.epoch and epoch != self.epoch:
                kind = Input.SUPERIOR if epoch > self.epoch else Input.INFERIOR
                reason = f"{name} became active after us"
            elif deaf:
                kind, self._gave_way = Input.SUPERIOR, True
                reason = f"{name} is active, too, and does not hear us"
        self._dispatch(kind, now, reason, advert)

    def handle_timer(self, now: int, refusal: str = "") -> None:
        """To be called at or after `get_timer`, once nothing received is unread: what was heard counts first.

        `refusal`: why a Backup may not take over now, see fence.refuses_takeover; it tries again an interval later.
        """
        if self.state is VrrpState.ACTIVE:
            self._step_down_if_dark(now)
        if self.state is VrrpState.ACTIVE:
            if now >= self._serve_at:
                self._serve(now)
            if now >= self._adver_at:
                self._dispatch(Input.TIMER, now, "")
            if self.serving and now >= self._announcements.at:
                self._events.append(self._announcements.again(now))
        elif self.state is VrrpState.BACKUP and now >= self._down_at:
            if now - self._down_at > self._active_interval and not self._heard_out:
                self._heard_out, self._down_at = True, now + self._active_interval
            elif refusal:
                self.refused, self._down_at = refusal, now + self.router.interval
            else:
                self._dispatch(Input.TIMER, now, self._why_takeover(now))

    @property
    def ask_at(self) -> int | None:
        """When a Backup should ask the shared store about the owner, to have the answer when its timer fires: after the
        second advertisement is missing."""
        return self._down_at - self._active_interval if self.state is VrrpState.BACKUP else None

    def hears_active(self, now: int) -> bool:
        """We are Backup of one whose advertisements arrive: a takeover now is a preemption."""
        return self.active_address is not None and now - self._heard_at <= 2 * self._active_interval

    def get_timer(self) -> int | None:
        """When to call `handle_timer` next; None: never."""
        if self.state is VrrpState.ACTIVE:
            return min(self._adver_at, self._announcements.at if self.serving else self._serve_at)
        return self._down_at if self.state is VrrpState.BACKUP else None

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def reconfigure(self, router: VirtualRouter, now: int) -> None:
        """Go on with other parameters; an Active stays Active and tells the new ones at once."""
        old, self.router = self.router, router
        if self.state is VrrpState.ACTIVE:
            self._advertise_now(now)
            if self.serving and (old.addresses != router.addresses or old.source != router.source):
                self._events.append(self._announcements.begin(now))
        elif self.state is VrrpState.BACKUP:
            if self.active_address is None:
                self._active_interval = router.interval
            self._arm_down(now, self._down_interval(), self._down_reason)

    def announce(self, now: int) -> None:
        """Announce the addresses again, from the first round: they were added anew, the link came back, or somebody
        answers again who may have heard another Active meanwhile."""
        if self.serving:
            self._events.append(self._announcements.begin(now))

    # --- RFC 9568 section 6.1: intervals --------------------------------------------------------------------

    def _skew_time(self) -> int:
        return (256 - self.router.priority) * self._active_interval // 256

    def _down_interval(self) -> int:
        return 3 * self._active_interval + self._skew_time()

    # --- RFC 9568 section 6.4: the actions of the table below ---------------------------------------------

    def _dispatch(self, kind: Input, now: int, reason: str, advert: Advert | None = None) -> None:
        action = TRANSITIONS.get((self.state, kind))
        if action is not None:
            action(self, now, reason, advert)

    def _begin(self, now: int, reason: str, _: Advert | None) -> None:
        if not self.router.peers:
            self._take_over(now, f"{reason}: sole member", None)
            return
        self._withdraw()  # what a predecessor that was killed left behind
        self._active_interval = self.router.interval
        self._not_before = now + self.router.startup_delay
        self._become_backup(now, reason)

    def _take_over(self, now: int, reason: str, _: Advert | None) -> None:
        preempts = self.hears_active(now)
        self.state, self.active_address, self.alarm, self._gave_way = VrrpState.ACTIVE, None, "", False
        self.epoch, self.refused = 0, ""
        self._serve_at = now + min(YIELD_WITHIN, self.router.interval // 10)
        self._advertise_now(now)
        if not preempts:
            self._serve(now)
        self._events.append(Changed(self.state, reason))

    def _serve(self, now: int) -> None:
        self._serve_at = FOREVER
        self._extend_lease()
        self._events.append(Claim())
        self._events.append(self._announcements.begin(now))

    def _advertise(self, now: int, _reason: str, _: Advert | None) -> None:
        self.due = self._adver_at
        on_schedule = self._adver_at + self.router.interval  # no drift...
        self._advertise_now(now)
        if on_schedule > now:  # ... and no burst
            self._adver_at = on_schedule

    def _assert_role(self, now: int, _reason: str, _: Advert | None) -> None:
        self._advertise_now(now)
        if self.serving:
            self._events.append(self._announcements.begin(now))
        else:
            self._serve(now)  # whom we preempt has yielded

    def _yield_role(self, now: int, reason: str, advert: Advert | None) -> None:
        assert advert is not None
        self._withdraw()
        # Makes the winner announce itself after us. It may not know why it won: our claim must not look better.
        self._send(max(1, min(self.router.priority, advert.priority - 1)), now)
        self._become_backup(now, reason)
        self._follow(now, reason, advert)
        self._yielded_to = advert.source, now

    def _step_down(self, now: int, reason: str, _: Advert | None) -> None:
        self._withdraw()
        self._active_interval = self.router.interval
        self._become_backup(now, reason)

    def _release(self, now: int, reason: str, _: Advert | None) -> None:
        self._withdraw()
        self._send(RELEASE_PRIORITY, now)
        self._leave(now, reason, None)

    def _hand_over(self, now: int, reason: str, _: Advert | None) -> None:
        self._gave_way = True
        self._give_up(now, reason, None)

    def _give_up(self, now: int, reason: str, _: Advert | None) -> None:
        self._withdraw()
        self._send(RELEASE_PRIORITY, now)
        self._active_interval = self.router.interval
        self._become_backup(now, reason)

    def _leave(self, _now: int, reason: str, _: Advert | None) -> None:
        self.state, self.active_address = VrrpState.INITIALIZE, None
        self._events.append(Changed(self.state, reason))

    def _follow(self, now: int, _reason: str, advert: Advert | None) -> None:
        assert advert is not None
        self._listen_to(advert, now)
        self._preempt_at = max(self._down_at, now + self.router.preempt_delay)

    def _follow_unless_preempting(self, now: int, _reason: str, advert: Advert | None) -> None:
        assert advert is not None
        since_last = now - self._heard_at
        self._listen_to(advert, now)
        in_time = self._active_interval < 2 * since_last < 3 * self._active_interval  # it runs now, and so did we
        wanted = (self.router.preempt and not self._gave_way) or self._degraded
        if wanted and in_time and now >= self._preempt_at:
            self._arm_down(now, 0, f"preempted priority {advert.priority} of {self.name_of(advert.source)}")

    def _listen_to(self, advert: Advert, now: int) -> None:
        self.active_address, self._active_priority = advert.source, advert.priority
        self._active_interval, self._heard_at, self.refused = advert.interval_cs * CENTISECOND, now, ""
        self._arm_down(now, self._down_interval(), "")

    def _hear_release(self, now: int, _reason: str, advert: Advert | None) -> None:
        assert advert is not None
        reason = f"released by {self.name_of(advert.source)}"
        if self.active_address not in (None, advert.source):
            return  # overtaken on its way by the advertisement of a successor whom we follow already
        known, self.active_address = self.active_address is not None, None
        if now < self._designated_until:
            self._await_release(now, reason)
        else:
            at_once = known and self.router.is_best_without(self._active_priority)
            # Also at once means by the timer: what else has been received may show a successor.
            self._arm_down(now, 0 if at_once else self._skew_time(), reason)

    def _await_release(self, now: int, reason: str) -> None:
        """After a handover to one that was named: the others leave it the time to take over."""
        self._arm_down(now, 0 if self._designated else self._down_interval(), reason)

    # --- their parts ----------------------------------------------------------------------------------------

    def _why_takeover(self, now: int) -> str:
        if self._down_reason or self.active_address is None:
            return self._down_reason
        name, silent = self.name_of(self.active_address), now - self._heard_at
        ended = silent - self._active_interval * 5 // 2
        lease = f", its lease ended {ended // MILLISECOND} ms ago" if ended > 0 else ""
        return f"no advertisement from {name} for {silent // MILLISECOND} ms{lease}"

    def _step_down_if_dark(self, now: int) -> None:
        silent = now - self._sent_at
        if self.state is VrrpState.ACTIVE and self.router.peers and silent > self.router.dark_after:
            self._dispatch(Input.DARK, now, f"did not run for {silent // 1_000_000} ms, a peer may have taken over")

    def _become_backup(self, now: int, reason: str) -> None:
        self.state, self.active_address = VrrpState.BACKUP, None
        self._arm_down(now, self._down_interval(), "nobody was heard")
        self._preempt_at = max(self._down_at, now + self.router.preempt_delay)
        self._events.append(Changed(self.state, reason))

    def _arm_down(self, now: int, after: int, reason: str) -> None:
        self._down_at, self._down_reason, self._heard_out = max(now + after, self._not_before), reason, False

    def _advertise_now(self, now: int) -> None:
        self._send(self.router.priority, now)
        if self.serving:
            self._extend_lease()
        self._adver_at = now + self.router.interval

    def _extend_lease(self) -> None:
        self._events.append(Lease(self._sent_at + self.router.dark_after if self.router.peers else FOREVER))

    def _withdraw(self) -> None:
        self._events += (Lease(0), Withdraw())

    def _send(self, priority: int, now: int) -> None:
        router = self.router
        addresses = tuple(address for address in router.addresses if address.version == router.source.version)
        self._events.append(Send(Advert(router.vrid, priority, router.interval_cs, addresses, router.source)))
        self._sent_at = now


Action = Callable[[Machine, int, str, Advert | None], None]

# RFC 9568 section 6.4, and the three rows it does not have (DARK, HANDOVER, FENCED). What is absent has no effect.
TRANSITIONS: Mapping[tuple[VrrpState, Input], Action] = {
    (VrrpState.INITIALIZE, Input.START): Machine._begin,
    (VrrpState.INITIALIZE, Input.RESUME): Machine._take_over,
    (VrrpState.BACKUP, Input.TIMER): Machine._take_over,
    (VrrpState.BACKUP, Input.RELEASE): Machine._hear_release,
    (VrrpState.BACKUP, Input.SUPERIOR): Machine._follow,
    (VrrpState.BACKUP, Input.EQUAL): Machine._follow,
    (VrrpState.BACKUP, Input.INFERIOR): Machine._follow_unless_preempting,
    (VrrpState.BACKUP, Input.STOP): Machine._leave,
    (VrrpState.ACTIVE, Input.TIMER): Machine._advertise,
    (VrrpState.ACTIVE, Input.RELEASE): Machine._assert_role,
    (VrrpState.ACTIVE, Input.SUPERIOR): Machine._yield_role,
    (VrrpState.ACTIVE, Input.EQUAL): Machine._assert_role,
    (VrrpState.ACTIVE, Input.INFERIOR): Machine._assert_role,
    (VrrpState.ACTIVE, Input.DARK): Machine._step_down,
    (VrrpState.ACTIVE, Input.HANDOVER): Machine._hand_over,
    (VrrpState.ACTIVE, Input.FENCED): Machine._give_up,
    (VrrpState.ACTIVE, Input.STOP): Machine._release,
}
