"""The authentication trailer of keepalived 2.4 (draft-cassen-vrrp-auth-hmac): 28 bytes behind the VRRP message. Pure.

    type 1 | key id | reserved 2 | UTC seconds 4 | 2^-16 s 2 | counter 2 | HMAC-SHA256 truncated to 16

The HMAC covers a pseudo-header (family, version, VRID, source), the message with its checksum taken as 0, and the
trailer up to the HMAC. Seconds, fraction and counter are one growing 64-bit sequence: the copies of one advertisement
have the same, whatever way they take.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lbnode.election.packet import TRAILER_LEN, Advert, Reason, Rejected
from lbnode.model import Address

MIN_KEY, MAX_KEY = 32, 64  # bytes
MIN_WINDOW_S = 5

_PREFIX = struct.Struct("!BBHQ")  # type, key id, reserved, sequence
_HMAC_SHA256 = 1
_HMAC_LEN = 16
_HALF = 1 << 63


class Mode(StrEnum):
    """In the order in which a running group is changed over, one node after the other."""

    OFF = "off"  # send none, look at none
    RECEIVE_ONLY = "receive-only"  # send none; check those that come
    PERMISSIVE = "permissive"  # send; accept messages without
    ENFORCE = "enforce"  # send; accept signed messages only


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a group demands. `keys` by id 1..255; `send_key` is one of them unless the mode is OFF.

    `fresh`: a sequence further than the window from our UTC is refused, as keepalived does. Without it a wrong clock
    splits no cluster: the order alone is checked, and a node that was silent for the window may begin anew.
    """

    mode: Mode = Mode.OFF
    keys: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    send_key: int = 0
    fresh: bool = False


OFF = Authentication()


def cluster_key(secret: str) -> bytes:
    """The key that nodes of one cluster make from the key they share for connection synchronisation."""
    return hmac.digest(secret.encode(), b"lbnode VRRP", hashlib.sha256)


class Signer:
    """Signs what this node sends. A restarted one goes on as long as its clock does."""

    def __init__(self) -> None:
        self._sequence = 0

    def trailer(self, authentication: Authentication, advert: Advert, message: bytes, utc: int) -> bytes:
        """For `message` (checksum 0) of `advert`; `utc` in ns. Empty when the mode sends none."""
        if authentication.mode not in (Mode.PERMISSIVE, Mode.ENFORCE):
            return b""
        clock = sequence_at(utc)
        behind = (self._sequence >> 32) - (clock >> 32)  # s; the clock was set back by that much
        if clock > self._sequence or (authentication.fresh and behind > window_s(advert.interval_cs)):
            self._sequence = clock
        else:
            self._sequence += 1
        key_id = authentication.send_key
        prefix = _PREFIX.pack(_HMAC_SHA256, key_id, 0, self._sequence)
        return prefix + _digest(authentication.keys[key_id], advert.source, advert, message, prefix)


class Verifier:
    """Checks what this node receives, and in which order each sender sent it."""

    def __init__(self) -> None:
        self._last: dict[Address, tuple[int, int]] = {}  # by sender: newest sequence, when it came (ns, monotonic)
        self.skew_s = 0  # between the UTC of the newest trailer and ours

    def check(self, authentication: Authentication, advert: Advert, payload: bytes, now: int, utc: int) -> bool:
        """False for a copy of the newest one. `payload`: message and trailer as received.

        Raises Rejected; then nothing has changed.
        """
        source, mode = advert.source, authentication.mode
        if mode is Mode.OFF:
            return True
        trailer_at = len(payload) - TRAILER_LEN
        if trailer_at < 8 + sum(len(address.packed) for address in advert.addresses) or advert.version == 2:
            if mode is Mode.ENFORCE:
                raise Rejected(Reason.UNSIGNED, f"{source}: no authentication trailer; set one there, or change ours")
            return True
        kind, key_id, reserved, sequence = _PREFIX.unpack_from(payload, trailer_at)
        if (kind, reserved) != (_HMAC_SHA256, 0):
            raise Rejected(Reason.TRAILER, f"{source}: authentication trailer of type {kind}, wanted {_HMAC_SHA256}")
        window, skew_s = window_s(advert.interval_cs), (utc // 1_000_000_000) - (sequence >> 32)
        if authentication.fresh and abs(skew_s) > window:
            raise Rejected(Reason.STALE, f"{source}: its clock differs by {skew_s} s, {window} s are allowed")
        key = authentication.keys.get(key_id)
        if key is None:
            raise Rejected(Reason.KEY, f"{source}: authentication key {key_id} is unknown here")
        prefix = payload[trailer_at : trailer_at + _PREFIX.size]
        wanted = _digest(key, source, advert, payload[:6] + bytes(2) + payload[8:trailer_at], prefix)
        if not hmac.compare_digest(payload[-_HMAC_LEN:], wanted):
            raise Rejected(Reason.SIGNATURE, f"{source}: wrong HMAC: key {key_id} differs there, or it is forged")
        newest, came = self._last.get(source, (0, 0))
        known = source in self._last and now - came <= window * 1_000_000_000
        if known and sequence == newest:
            return False
        if known and not 0 < (sequence - newest) % (1 << 64) < _HALF:  # RFC 1982
            raise Rejected(Reason.REPLAY, f"{source}: an older advertisement came again")
        self._last[source], self.skew_s = (sequence, now), skew_s
        return True


def sequence_at(utc: int) -> int:
    """UTC in ns as seconds (32 bits), 2^-16 seconds (16 bits), and a counter of 0."""
    seconds, ns = divmod(utc, 1_000_000_000)
    return (seconds & 0xFFFFFFFF) << 32 | (ns << 16) // 1_000_000_000 << 16


def window_s(interval_cs: int) -> int:
    """Three advertisements, but not less than 5 s."""
    return max(MIN_WINDOW_S, -(-3 * interval_cs // 100))


def _digest(key: bytes, source: Address, advert: Advert, message: bytes, prefix: bytes) -> bytes:
    pseudo = bytes((source.version, advert.version, advert.vrid, 0)) + source.packed.ljust(16, b"\0")
    return hmac.digest(key, pseudo + message + prefix + bytes(_HMAC_LEN), hashlib.sha256)[:_HMAC_LEN]
