"""The trailer of keepalived 2.4: its draft's test vectors, each reason to refuse, the order of a sender's messages."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.election.authentication import (
    OFF,
    Authentication,
    Mode,
    Signer,
    Verifier,
    cluster_key,
    sequence_at,
    window_s,
)
from lbnode.election.packet import Advert, ChecksumForm, Reason, Rejected, encode, message

KEY = bytes(range(32))
UTC = 0x68000000 * 1_000_000_000 + 500_000_000  # sequence 0x6800000080000000
ENFORCE = Authentication(Mode.ENFORCE, {1: KEY}, 1, fresh=True)
V4 = Advert(51, 200, 100, (ip_address("192.0.2.100"),), ip_address("198.51.100.10"), ChecksumForm.PLAIN)
V6 = Advert(51, 200, 100, (ip_address("fe80::100"),), ip_address("fe80::10"))
# Wire images of draft-cassen-vrrp-auth-hmac, appendix; the IPv6 one is for the destination fe80::20.
DRAFT_V4 = "3133c80100644402c0000264 010100006800000080000000 1b84bc4e8e43892dc6d98448f8ee2265"
DRAFT_V6 = "3133c8010064a2e9fe800000000000000000000000000100 010100006800000080000000 c8c56146ebfd66ee10ec4d8186461b78"


def signed(advert: Advert, utc: int = UTC, authentication: Authentication = ENFORCE) -> bytes:
    trailer = Signer().trailer(authentication, advert, message(advert), utc)
    return encode(advert, ip_address("fe80::20") if advert.source.version == 6 else None, trailer)


@pytest.mark.parametrize(("advert", "image"), [(V4, DRAFT_V4), (V6, DRAFT_V6)], ids=["IPv4", "IPv6"])
def test_the_message_equals_the_image_of_the_draft(advert: Advert, image: str) -> None:
    assert signed(advert) == bytes.fromhex(image)
    assert Verifier().check(ENFORCE, advert, bytes.fromhex(image), 0, UTC)


def refused(payload: bytes, *, authentication: Authentication = ENFORCE, advert: Advert = V4, utc: int = UTC) -> Reason:
    with pytest.raises(Rejected) as caught:
        Verifier().check(authentication, advert, payload, 0, utc)
    return caught.value.reason


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (2, Reason.SIGNATURE),  # priority
        (5, Reason.SIGNATURE),  # interval
        (11, Reason.SIGNATURE),  # address
        (12, Reason.TRAILER),  # type
        (13, Reason.KEY),
        (14, Reason.TRAILER),  # reserved
        (18, Reason.STALE),  # seconds: 256 away
        (23, Reason.SIGNATURE),  # counter
        (39, Reason.SIGNATURE),
    ],
)
def test_one_changed_byte_is_refused(offset: int, reason: Reason) -> None:
    payload = bytearray(signed(V4))
    payload[offset] ^= 1
    assert refused(bytes(payload)) is reason


def test_the_checksum_is_not_signed_since_each_copy_has_its_own() -> None:
    payload = bytearray(signed(V4))
    payload[6] ^= 1
    assert Verifier().check(ENFORCE, V4, bytes(payload), 0, UTC)


def test_source_and_vrid_are_bound() -> None:
    assert refused(signed(V4), advert=replace(V4, source=ip_address("198.51.100.11"))) is Reason.SIGNATURE
    assert refused(signed(V4), advert=replace(V4, vrid=52)) is Reason.SIGNATURE


def test_enforce_refuses_an_unsigned_message_the_modes_before_it_do_not() -> None:
    bare = encode(V4)
    assert refused(bare) is Reason.UNSIGNED
    for mode in (Mode.RECEIVE_ONLY, Mode.PERMISSIVE):
        assert Verifier().check(replace(ENFORCE, mode=mode), V4, bare, 0, UTC)
        assert refused(signed(V4), authentication=Authentication(mode, {1: bytes(32)}, 1)) is Reason.SIGNATURE


def test_only_permissive_and_enforce_sign() -> None:
    lengths = {mode: len(Signer().trailer(replace(ENFORCE, mode=mode), V4, message(V4), UTC)) for mode in Mode}
    assert lengths == {Mode.OFF: 0, Mode.RECEIVE_ONLY: 0, Mode.PERMISSIVE: 28, Mode.ENFORCE: 28}
    assert Verifier().check(OFF, V4, b"anything", 0, UTC)


def test_keys_are_rotated_by_knowing_both_before_signing_with_the_new_one() -> None:
    new = Authentication(Mode.ENFORCE, {1: KEY, 2: bytes(32)}, 2, fresh=True)
    assert Verifier().check(new, V4, signed(V4), 0, UTC)
    assert Verifier().check(new, V4, signed(V4, authentication=new), 0, UTC)
    assert refused(signed(V4, authentication=new)) is Reason.KEY


def test_a_copy_is_known_and_an_older_message_refused() -> None:
    signer, verifier = Signer(), Verifier()
    first, second = (
        encode(V4, None, signer.trailer(ENFORCE, V4, message(V4), UTC + step * 1_000_000)) for step in range(2)
    )
    assert verifier.check(ENFORCE, V4, second, 0, UTC)
    assert not verifier.check(ENFORCE, V4, second, 1, UTC)
    with pytest.raises(Rejected) as caught:
        verifier.check(ENFORCE, V4, first, 2, UTC)
    assert caught.value.reason is Reason.REPLAY


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_what_a_sender_sends_grows_however_its_clock_jumps_back(clock: list[int]) -> None:
    signer, verifier = Signer(), Verifier()
    authentication = replace(ENFORCE, fresh=False)
    for utc in clock:
        payload = encode(V4, None, signer.trailer(authentication, V4, message(V4), UTC + utc))
        assert verifier.check(authentication, V4, payload, 0, UTC)


def test_without_a_common_clock_the_order_counts_and_a_restarted_sender_is_heard_after_the_window() -> None:
    authentication, verifier = replace(ENFORCE, fresh=False), Verifier()
    hour = 3600 * 10**9
    assert verifier.check(authentication, V4, signed(V4, UTC + hour), 0, UTC)
    assert verifier.skew_s == -3600
    with pytest.raises(Rejected):
        verifier.check(authentication, V4, signed(V4), 5 * 10**9, UTC)
    assert verifier.check(authentication, V4, signed(V4), 5 * 10**9 + 1, UTC)


def test_with_fresh_a_clock_beyond_the_window_is_refused() -> None:
    for skew in (-6, 6):
        assert refused(signed(V4, UTC + skew * 10**9)) is Reason.STALE
    assert (window_s(10), window_s(100), window_s(1000)) == (5, 5, 30)


def test_the_sequence_is_utc_with_a_sixteen_bit_fraction() -> None:
    assert sequence_at(UTC) == 0x6800000080000000


def test_the_cluster_key_is_made_from_the_shared_secret() -> None:
    assert len(cluster_key("secret")) == 32 and cluster_key("secret") != cluster_key("Secret")
