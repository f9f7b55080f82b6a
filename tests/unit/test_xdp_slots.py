"""Lists and tables of the schedulers. That they lead to IPVS's choices is tested on packets (tests/packets)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from ipaddress import IPv4Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.dataplane.xdp import maglev, slots
from lbnode.dataplane.xdp.layout import SH_SLOTS, SLOT_EMPTY, Scheduler, ServiceFlag
from lbnode.model import GENERIC_FLAGS, ServerId

weights = st.lists(st.integers(0, 65535), min_size=1, max_size=12)


def ids(count: int) -> list[ServerId]:
    return [ServerId(IPv4Address(0xC6336400 + n), 80) for n in range(1, count + 1)]


def members(given_weights: list[int]) -> list[slots.Member]:
    return [
        slots.Member(100 + n, server, weight, weight)
        for n, (server, weight) in enumerate(zip(ids(len(given_weights)), given_weights, strict=True))
    ]


# --- Maglev ----------------------------------------------------------------------------------------------------------


def test_siphash_is_the_kernels() -> None:
    """SipHash-1-3 by its definition (Aumasson, Bernstein), 4 bytes, written once more with the state as a list."""

    def reference(word: int, key: int) -> int:
        v = [0x736F6D6570736575 ^ key, 0x646F72616E646F6D ^ key, 0x6C7967656E657261 ^ key, 0x7465646279746573 ^ key]
        mask = 2**64 - 1

        def half(a: int, b: int, s: int, t: int) -> None:
            v[a] = (v[a] + v[b]) & mask
            v[b] = ((v[b] << s) | (v[b] >> (64 - s))) & mask ^ v[a]
            if t:
                v[a] = ((v[a] << 32) | (v[a] >> 32)) & mask

        def rounds(count: int) -> None:
            for _ in range(count):
                half(0, 1, 13, 32)
                half(2, 3, 16, 0)
                half(0, 3, 21, 0)
                half(2, 1, 17, 32)

        message = (4 << 56) | word
        v[3] ^= message
        rounds(1)
        v[0] ^= message
        v[2] ^= 0xFF
        rounds(3)
        return (v[0] ^ v[1] ^ v[2] ^ v[3]) & 0xFFFFFFFF

    for word in (0, 1, 0xC0000201, 0xFFFFFFFF):
        for key in (0, 2654435761, 2**64 - 1):
            assert maglev.siphash13(word, key) == reference(word, key)


@given(weights)
@settings(max_examples=30)
def test_every_slot_is_filled_in_proportion_to_the_weights(given_weights: list[int]) -> None:
    table = maglev.table(ids(len(given_weights)), given_weights)
    shares = maglev.turns(given_weights)
    if not any(given_weights):
        assert set(table) == {None}
        return
    counted = Counter(table)
    assert None not in counted
    for position, share in enumerate(shares):
        # within one turn: everybody had the same number of whole rounds, the last round may be cut
        assert abs(counted[position] - maglev.SLOTS * share / sum(shares)) <= share


@given(weights)
def test_turns_keep_the_order_of_weights_and_forget_nobody(given_weights: list[int]) -> None:
    turns = maglev.turns(given_weights)
    assert [turn > 0 for turn in turns] == [weight > 0 for weight in given_weights]
    pairs = sorted(zip(given_weights, turns, strict=True))
    assert [turn for _, turn in pairs] == sorted(turns)
    assert max(turns) < 4096


def test_equal_weights_are_balanced_to_one_slot() -> None:
    for count in (1, 2, 3, 16, 100):
        counted = Counter(maglev.table(ids(count), [1] * count)).values()
        assert max(counted) - min(counted) <= 1


def test_a_lost_server_moves_few_clients_of_the_others() -> None:
    """The point of Maglev: when one of 16 goes, 1.6 % of what the others held moves too (modulo hashing: 94 %)."""
    servers = ids(16)
    before = maglev.table(servers, [1] * 16)
    after = maglev.table(servers, [1] * 7 + [0] + [1] * 8)
    kept = [(one, other) for one, other in zip(before, after, strict=True) if one != 7]
    moved = sum(one != other for one, other in kept)
    assert 7 not in after
    assert round(moved / len(kept), 4) == 0.0156


def test_the_order_of_the_list_matters_little() -> None:
    """Two gateways that added the servers in another order disagree about 1 % of the clients."""
    servers = ids(16)
    one = [servers[position or 0] for position in maglev.table(servers, [1] * 16)]
    backwards = servers[::-1]
    other = [backwards[position or 0] for position in maglev.table(backwards, [1] * 16)]
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 41


def test_ipv6_addresses_are_folded() -> None:
    assert maglev.fold(ip_address("2001:db8::1")) == 0x20010DB8 ^ 1
    assert maglev.fold(ip_address("192.0.2.1")) == 0xC0000201


# --- source hashing --------------------------------------------------------------------------------------------------


def test_source_hashing_gives_runs_as_long_as_the_weights() -> None:
    table = slots.table(Scheduler.SH, members([1, 3, 0]))
    assert len(table) == SH_SLOTS
    assert table[:10] == [100, 101, 101, 101, 102, 100, 101, 101, 101, 102]


def test_no_servers_no_slots() -> None:
    assert set(slots.table(Scheduler.SH, [])) == {SLOT_EMPTY}
    assert set(slots.table(Scheduler.MH, [])) == {SLOT_EMPTY}
    assert set(slots.table(Scheduler.MH, members([0, 0]))) == {SLOT_EMPTY}
    assert slots.table(Scheduler.RR, members([1, 1])) == []


# --- cursors ---------------------------------------------------------------------------------------------------------


def test_wrr_parameters() -> None:
    assert slots.wrr_parameters([10, 20, 30]) == (21, 10)
    assert slots.wrr_parameters([1, 2, 3]) == (3, 1)
    assert slots.wrr_parameters([0, 0]) == (0, 1)
    assert slots.wrr_parameters([]) == (0, 1)


@given(st.integers(0, 65535), weights)
def test_wrr_goes_on_from_a_weight_that_the_walk_can_reach(current: int, given_weights: list[int]) -> None:
    max_weight, divisor = slots.wrr_parameters(given_weights)
    start = slots.wrr_start(current, max_weight, divisor)
    assert 0 <= start <= max_weight + divisor
    if max_weight:
        assert start % divisor == 1 % divisor


def test_round_robin_goes_on_behind_the_server_chosen_last() -> None:
    before = [5, 4, 3]
    assert slots.carry_position(before, [6, 5, 4, 3], 1) == 2  # one came: still at 4
    assert slots.carry_position(before, [5, 3], 1) == 0  # 4 went: at the one before it
    assert slots.carry_position(before, [4, 3], 0) == 2  # the first went: from the head
    assert slots.carry_position(before, [9], 3) == 1  # nothing chosen yet


@given(st.sets(st.sampled_from(["sh-port", "sh-fallback", "flag-3"])), st.sets(st.sampled_from(GENERIC_FLAGS)))
def test_flags_survive(of_sh: set[str], of_others: set[str]) -> None:
    """ipvsadm's bits: sh-fallback is flag-1, sh-port flag-2."""
    assert slots.flag_names(Scheduler.SH, slots.flags("sh", of_sh)) == of_sh
    assert slots.flag_names(Scheduler.RR, slots.flags("rr", of_others)) == of_others
    assert slots.flags("mh", {"mh-fallback"}) == slots.flags("rr", {"flag-1"}) == ServiceFlag.FLAG_1


# --- other lists and tables ------------------------------------------------------------------------------------------


def test_destination_hashing_gives_every_server_the_same() -> None:
    assert slots.table(Scheduler.DH, members([1, 3, 0]))[:4] == [100, 101, 102, 100]


def test_maglev_keeps_the_slots_of_a_server_that_is_drained() -> None:
    """As IPVS: its clients are refused, or go to the fallback, and nobody else moves."""
    drained = [replace(one, weight=0) if one.index == 101 else one for one in members([1, 3, 2])]
    assert slots.table(Scheduler.MH, drained) == slots.table(Scheduler.MH, members([1, 3, 2]))
    assert slots.table_key(Scheduler.MH, drained) == slots.table_key(Scheduler.MH, members([1, 3, 2]))


@given(weights)
def test_fo_and_ovf_begin_with_the_largest_weight(given_weights: list[int]) -> None:
    found = members(given_weights)
    weight_of = {one.index: one.weight for one in found}
    order = slots.order(Scheduler.FO, found)
    assert sorted(order, key=lambda index: (-weight_of[index], index)) == order
    assert slots.order(Scheduler.RR, found) == [one.index for one in found]


large = st.integers(1, 2**31 - 1)  # what ipvsadm takes


@given(st.lists(large, max_size=40))
def test_draws_have_the_weights_shares(given_weights: list[int]) -> None:
    """Whatever a value gets as an element's own and as others' alias is its weight's part of all weights."""
    table = slots.alias_table(list(enumerate(given_weights)))
    count, total = len(given_weights), sum(given_weights)
    assert len(table) == 3 * count
    chance = [Fraction(0)] * count
    for value, threshold, alias in zip(table[::3], table[1::3], table[2::3], strict=True):
        own = Fraction(threshold + 1, 2**32)
        chance[value] += own / count
        chance[alias] += (1 - own) / count
    for value, weight in enumerate(given_weights):
        assert abs(chance[value] - Fraction(weight, total)) <= Fraction(count, 2**31)


def test_two_choices_by_weight() -> None:
    """Drawn with a fixed seed as sched_random.h does: the weights' shares, within five standard deviations."""
    given_weights, draws = [1, 2, 3, 10], 20_000
    table = slots.table(Scheduler.TWOS, members([*given_weights, 0]))
    assert len(table) == 3 * len(given_weights), "who has no weight is never drawn"
    chance = random.Random(20261127)
    counted: Counter[int] = Counter()
    for _ in range(draws):
        at = 3 * (chance.getrandbits(32) * len(given_weights) >> 32)
        counted[table[at] if chance.getrandbits(32) <= table[at + 1] else table[at + 2]] += 1
    for index, weight in enumerate(given_weights, 100):
        share = weight / sum(given_weights)
        assert abs(counted[index] - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5
