"""What a group says in each family and to each peer, and whom it hears."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from lbnode.election.authentication import Authentication, Mode
from lbnode.election.endpoint import Endpoint, Style
from lbnode.election.packet import Advert, ChecksumForm, Datagram, Reason, Rejected, encode
from lbnode.model import Address

A4, B4, C4 = (ip_address(f"192.0.2.{n}") for n in (1, 2, 3))
A6, B6 = ip_address("fe80::1"), ip_address("fe80::2")
VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
MULTICAST: dict[int, Address] = {4: ip_address("224.0.0.18"), 6: ip_address("ff02::12")}
ENFORCE = Authentication(Mode.ENFORCE, {1: bytes(32)}, 1)
UTC = 1_800_000_000_000_000_000


def endpoint(style: Style = Style(), source: IPv4Address = A4, interval_cs: int = 10) -> Endpoint:  # noqa: B008
    made = Endpoint()
    second = A6 if source == A4 else B6
    made.configure(51, interval_cs, {source: (VIP4,), second: (VIP6,)}, style)
    return made


def said(endpoint: Endpoint, priority: int = 200, utc: int = UTC) -> list[Datagram]:
    """What the endpoint sends for one advertisement, as it arrives."""
    out = endpoint.datagrams(Advert(51, priority, 10, (VIP4,), A4), utc)
    return [Datagram(one.source, one.destination, 255, one.payload) for one in out]


def from_(source: Address, advert: Advert) -> Datagram:
    return Datagram(source, MULTICAST[source.version], 255, encode(advert))


def test_one_advertisement_goes_out_in_both_families_with_the_addresses_of_each() -> None:
    heard = [endpoint(source=B4).receive(datagram, 0, UTC) for datagram in said(endpoint())]
    assert [(a.source, a.addresses, a.priority) for a in heard if a] == [(A4, (VIP4,), 200), (A6, (VIP6,), 200)]


def test_unicast_goes_to_each_peer_but_ourselves_and_strangers_are_refused() -> None:
    style = Style(unicast=(A4, B4, C4, A6, B6))
    assert [(d.source, d.destination) for d in said(endpoint(style))] == [(A4, B4), (A4, C4), (A6, B6)]
    to_b = said(endpoint(style))[0]
    assert endpoint(style, B4).receive(to_b, 0, UTC) is not None
    with pytest.raises(Rejected) as caught:
        endpoint(Style(unicast=(B4, C4)), B4).receive(to_b, 0, UTC)
    assert caught.value.reason is Reason.SENDER


@pytest.mark.parametrize("form", ChecksumForm)
def test_rfc_9568_5_2_8_both_checksum_forms_are_heard_and_auto_answers_in_kind(form: ChecksumForm) -> None:
    ours = endpoint()
    ours.receive(from_(B4, Advert(51, 100, 10, (VIP4,), B4, form)), 0, UTC)
    heard = endpoint(source=B4).receive(said(ours)[0], 0, UTC)
    assert heard is not None and (heard.form, ours.alarm) == (form, "")


@pytest.mark.parametrize("form", ChecksumForm)
def test_a_configured_checksum_form_stays_and_another_one_of_the_peer_is_an_alarm(form: ChecksumForm) -> None:
    ours = endpoint(Style(checksum=form))
    other = next(one for one in ChecksumForm if one is not form)
    ours.receive(from_(B4, Advert(51, 100, 10, (VIP4,), B4, other)), 0, UTC)
    heard = endpoint(source=B4).receive(said(ours)[0], 0, UTC)
    assert heard is not None and heard.form is form
    assert ours.alarm == f"192.0.2.2 sends checksums of the form {other}, we send {form}: it may ignore ours"


def test_rfc_3768_7_1_version_2_is_heard_when_its_interval_is_ours() -> None:
    old = Advert(51, 100, 100, (VIP4,), B4, version=2)
    slow = endpoint(interval_cs=100)
    heard = slow.receive(from_(B4, old), 0, UTC)
    assert heard == replace(old, form=ChecksumForm.PLAIN)
    assert slow.alarm == "192.0.2.2 speaks VRRP version 2, we speak 3: make them equal"
    with pytest.raises(Rejected, match=r"version 2 with an interval of 1 s, ours is 0\.1 s"):
        endpoint().receive(from_(B4, old), 0, UTC)


def test_version_2_is_spoken_when_told_to() -> None:
    (datagram, _) = said(endpoint(Style(version=2)))
    assert datagram.payload[:1] == b"\x21" and len(datagram.payload) == 8 + 4 + 8


def test_rfc_9568_7_1_our_own_address_as_sender_is_refused_in_both_families() -> None:
    ours = endpoint()
    for datagram in said(endpoint()):
        with pytest.raises(Rejected) as caught:
            ours.receive(datagram, 0, UTC)
        assert caught.value.reason is Reason.OWN_ADDRESS


def test_a_signed_copy_that_came_another_way_is_no_news() -> None:
    peer, ours = endpoint(Style(authentication=ENFORCE), B4), endpoint(Style(authentication=ENFORCE))
    first = said(peer)
    again = said(peer, utc=UTC + 1_000_000)
    assert [ours.receive(d, 0, UTC) is not None for d in (*first, *first, *again)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(Rejected) as caught:
        ours.receive(first[0], 0, UTC)
    assert caught.value.reason is Reason.REPLAY


def test_a_clock_that_differs_is_an_alarm_long_before_it_is_refused() -> None:
    ours = endpoint(Style(authentication=ENFORCE))
    ours.receive(said(endpoint(Style(authentication=ENFORCE), B4))[0], 0, UTC + 60 * 10**9)
    assert ours.alarm == "the clock of 192.0.2.2 differs from ours by 60 s: synchronise both (NTP)"
