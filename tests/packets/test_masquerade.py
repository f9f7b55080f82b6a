"""Network address translation: the client's packets to the server, the server's packets back."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from tests.packets.bench import Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import CLIENT, CLIENT_ROUTER_MAC, SERVER_MAC, VIP

pytestmark = pytest.mark.root


def test_tcp_both_directions(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:8080")
    out = bench.send(tcp(40000, "S", ttl=50, tos=0x28, id=77))
    assert out.verdict == "send" and not out.reflected
    assert (out.eth.src, out.eth.dst) == (bench.wire.mac("back"), SERVER_MAC)
    assert (out.ip.src, out.ip.dst, out.ip.ttl, out.ip.tos, out.ip.id) == (CLIENT, "198.51.100.11", 49, 0x28, 77)
    assert (out.ip[TCP].sport, out.ip[TCP].dport, out.ip[TCP].seq) == (40000, 8080, 1000)

    back = bench.send(answer(out.ip, ttl=64, data=b"hello"), "back")
    assert back.verdict == "send"
    assert (back.eth.src, back.eth.dst) == (bench.wire.mac("front"), CLIENT_ROUTER_MAC)
    assert (back.ip.src, back.ip.dst, back.ip.ttl) == (VIP, CLIENT, 63)
    assert (back.ip[TCP].sport, back.ip[TCP].dport, back.ip[Raw].load) == (80, 40000, b"hello")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1400, 1472])
def test_udp_of_every_parity(bench: Bench, size: int) -> None:
    service = bench.service(f"udp:{VIP}:53")
    bench.server(service, "198.51.100.11:5353")
    out = bench.send(udp(1234, data=b"x" * size))
    assert (out.verdict, out.ip.dst, out.ip[UDP].dport) == ("send", "198.51.100.11", 5353)
    back = bench.send(answer(out.ip, data=b"y" * size), "back")
    assert (back.verdict, back.ip.src, back.ip[UDP].sport, back.ip[UDP].dport) == ("send", VIP, 53, 1234)


def test_udp_without_checksum_stays_without(bench: Bench) -> None:
    service = bench.service(f"udp:{VIP}:53")
    bench.server(service, "198.51.100.11:5353")
    packet = IP(src=CLIENT, dst=VIP) / UDP(sport=1, dport=53, chksum=0) / b"data"
    out = bench.send(packet)
    assert (out.verdict, out.ip[UDP].chksum) == ("send", 0)
    back = bench.send(IP(src="198.51.100.11", dst=CLIENT) / UDP(sport=5353, dport=1, chksum=0) / b"data", "back")
    assert (back.verdict, back.ip.src, back.ip[UDP].chksum) == ("send", VIP, 0)


def test_udp_checksum_that_becomes_zero_is_sent_as_ffff(bench: Bench) -> None:
    """RFC 768: zero means "none", so a computed zero travels as all ones."""
    service = bench.service(f"udp:{VIP}:53")
    bench.server(service, "198.51.100.11:5353")
    translated = bytearray(bytes(IP(src=CLIENT, dst="198.51.100.11") / UDP(sport=9, dport=5353) / b"\0\0"))
    # With this payload word the translated datagram sums up to all ones: its checksum is computed as zero.
    wanted = int.from_bytes(translated[26:28], "big")
    packet = IP(src=CLIENT, dst=VIP) / UDP(sport=9, dport=53) / wanted.to_bytes(2, "big")
    out = bench.send(packet)
    assert (out.verdict, out.ip[UDP].chksum) == ("send", 0xFFFF)


def test_port_zero_of_the_translation_is_the_same_port(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80")
    out = bench.send(tcp(40000, "S"))
    assert out.ip[TCP].dport == 80


def test_two_services_share_a_server_address(bench: Bench) -> None:
    """Replies are told apart by the server's port."""
    for port, target in ((80, 8080), (443, 8443)):
        service = bench.service(f"tcp:{VIP}:{port}")
        bench.server(service, f"198.51.100.11:{target}")
    first, second = bench.send(tcp(40000, dport=80)), bench.send(tcp(40000, dport=443))
    assert (first.ip[TCP].dport, second.ip[TCP].dport) == (8080, 8443)
    for out, port in ((first, 80), (second, 443)):
        back = bench.send(answer(out.ip), "back")
        assert (back.ip.src, back.ip[TCP].sport) == (VIP, port)


def test_what_servers_say_of_their_own_accord_passes_untouched(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:8080")
    bench.connect()
    strange = IP(src="198.51.100.11", dst=CLIENT) / TCP(sport=8080, dport=41111, flags="SA")
    assert bench.send(strange, "back").verdict == "pass"


def test_ttl_that_runs_out_is_answered(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:8080")
    out = bench.send(tcp(40000, "S", ttl=1))
    assert out.verdict == "send"
    assert (out.ip.src, out.ip.dst, out.ip.payload.type, out.ip.payload.code) == (VIP, CLIENT, 11, 0)
    assert bench.drops() == 1


def test_next_hop_from_the_kernels_routes(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.12:80", hop=False)
    out = bench.send(tcp())
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    assert out.ip.dst == "198.51.100.12"
