"""A bad value never unloads what worked; deleting deletes; references and clashes across keys."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.config.resolve import Resolution, resolve
from lbnode.model import Problem, ServerId, ServiceId, Severity, VirtualService
from lbnode.store.base import Entry

WEB = "services/tcp:192.0.2.10:80"
WEB_ID = ServiceId.of("tcp", "192.0.2.10", 80)
ONE, TWO = f"{WEB}/servers/198.51.100.21:80", f"{WEB}/servers/198.51.100.22:80"


class Cluster:
    """Puts and deletes as a store would number them, each followed by resolve; restart() goes through the cache."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.now: Resolution | dict[str, Entry] = {}

    def put(self, **values: Any) -> Resolution:
        return self.change({}, values)

    def change(
        self, puts: dict[str, Any], more: dict[str, Any] | None = None, delete: tuple[str, ...] = ()
    ) -> Resolution:
        self.revision += 1
        self.entries = dict(self.entries)
        for key, value in {**puts, **(more or {})}.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self.entries[key] = Entry(text, self.revision)
        for key in delete:
            del self.entries[key]
        result = resolve(self.entries, self.now, self.revision)
        fresh = resolve(self.entries, self.now.good if isinstance(self.now, Resolution) else self.now, self.revision)
        assert result.config == fresh.config, "incremental and full resolve agree"
        assert set(result.problems) == set(fresh.problems)
        assert result.good == fresh.good
        self.now = result
        return result


def errors(resolution: Resolution) -> dict[str, Problem]:
    return {problem.where: problem for problem in resolution.problems if problem.severity is Severity.ERROR}


def web(resolution: Resolution) -> VirtualService:
    return resolution.config.services[WEB_ID]


def weights(resolution: Resolution) -> dict[str, int]:
    return {str(server.id): server.weight for server in web(resolution).servers}


def test_a_service_with_servers_and_defaults() -> None:
    result = Cluster().change({WEB: {}, TWO: {"weight": 2}, ONE: {}})
    assert result.problems == ()
    assert (web(result).scheduler, web(result).revision) == ("wlc", 1)
    assert [str(server.id) for server in web(result).servers] == ["198.51.100.21:80", "198.51.100.22:80"]


def test_what_a_service_lets_ends_announce() -> None:
    cluster = Cluster()
    assert web(cluster.change({WEB: {}})).mss is None
    assert web(cluster.change({WEB: {"mss": 1360}})).mss == 1360


def test_bad_values_keep_the_last_good_ones() -> None:
    cluster = Cluster()
    cluster.change({WEB: {"scheduler": "rr"}, ONE: {"weight": 5}})
    for bad in ("{", '{"weight": 3000000000}', '{"weigth": 1}', '{"forward": "derect"}'):
        result = cluster.change({ONE: bad})
        assert weights(result) == {"198.51.100.21:80": 5}
        assert "revision 1 stays in force" in errors(result)[ONE].hint
    result = cluster.change({WEB: {"schedulr": "rr"}})
    assert web(result).scheduler == "rr"
    assert set(errors(result)) == {WEB, ONE}
    assert cluster.change({WEB: {"scheduler": "sh"}, ONE: {"weight": 6}}).problems == ()


def test_a_direct_server_with_another_port_keeps_its_last_good_value() -> None:
    cluster = Cluster()
    key = f"{WEB}/servers/198.51.100.21:8080"
    cluster.change({WEB: {}, key: {"weight": 3}})
    result = cluster.change({key: {"weight": 4, "forward": "direct"}})
    assert "8080 here, 80 in the service" in errors(result)[key].message
    assert weights(result) == {"198.51.100.21:8080": 3}


def test_a_bad_value_without_a_good_one_is_not_in_force() -> None:
    result = Cluster().change({WEB: {}, ONE: {"weight": -1}, TWO: {}})
    assert weights(result) == {"198.51.100.22:80": 1}
    assert "nothing is in force" in errors(result)[ONE].hint
    assert ONE not in result.good


def test_deleting_deletes_also_what_was_bad() -> None:
    cluster = Cluster()
    cluster.change({WEB: {}, ONE: {"weight": 5}, TWO: {}})
    cluster.change({ONE: "{"})
    assert weights(cluster.change({}, delete=(ONE,))) == {"198.51.100.22:80": 1}
    assert weights(cluster.change({ONE: "{"})) == {"198.51.100.22:80": 1}
    result = cluster.change({}, delete=(WEB, ONE, TWO))
    assert result.config.services == {}
    assert result.good == {}
    assert result.problems == ()


def test_a_server_without_its_service() -> None:
    cluster = Cluster()
    result = cluster.change({ONE: {}})
    assert "has no service" in errors(result)[ONE].message
    assert result.config.services == {}
    assert weights(cluster.change({WEB: {}})) == {"198.51.100.21:80": 1}
    assert set(errors(cluster.change({}, delete=(WEB,)))) == {ONE}


def test_the_cache_carries_the_last_good_values_over_a_restart() -> None:
    cluster = Cluster()
    cluster.change({WEB: {"check": "web"}, ONE: {"weight": 5}, "checks/web": {"type": "http"}})
    last = cluster.change({ONE: "{", WEB: "{"}, delete=("checks/web",))
    again = resolve(cluster.entries, last.good, cluster.revision)
    assert again.config == last.config
    assert web(again).check is not None
    assert weights(again) == {"198.51.100.21:80": 5}
    assert resolve(last.good, last.good).config.services == last.config.services


def test_unknown_keys_are_reported_and_node_keys_are_not() -> None:
    result = Cluster().change({"servces/x": {}, "nodes/gw1": {"anything": 1}, "services/tcp:192.0.2.010:80": {}})
    assert set(errors(result)) == {"servces/x", "services/tcp:192.0.2.010:80"}


def test_references_to_checks() -> None:
    cluster = Cluster()
    result = cluster.change({WEB: {"check": "wep"}, "checks/web": {"type": "http", "path": "/a"}})
    assert 'did you mean "web"' in errors(result)[WEB].hint
    assert result.config.services == {}
    result = cluster.change({WEB: {"check": "web"}})
    check = web(result).check
    assert check is not None and check.http is not None and check.http.path == "/a"
    result = cluster.change({"checks/web": {"type": "http", "path": "/b"}})
    check = web(result).check
    assert check is not None and check.http is not None and check.http.path == "/b"
    result = cluster.change({}, delete=("checks/web",))
    assert web(result).check == check
    assert "was deleted" in errors(result)[WEB].message
    result = cluster.change({WEB: {"check": "web", "scheduler": "rr"}})
    assert web(result).scheduler == "wlc"
    result = cluster.change({WEB: {}})
    assert result.problems == ()
    assert "checks/web" not in result.good
    assert "there is no check" in errors(cluster.change({WEB: {"check": "web"}}))[WEB].message
    assert web(cluster.now if isinstance(cluster.now, Resolution) else Resolution()).check is None


def test_a_refused_value_is_taken_once_what_it_refers_to_appears() -> None:
    cluster = Cluster()
    cluster.change({WEB: {"check": "a"}, "checks/a": {"type": "http"}})
    assert errors(cluster.change({WEB: {"check": "b", "vip_group": "front", "scheduler": "rr"}}))
    assert errors(cluster.change({"checks/b": {"interval": 9}}))
    result = cluster.change({"vip-groups/front": group(1, "192.0.2.10/24")})
    assert result.problems == ()
    check = web(result).check
    assert (web(result).scheduler, check and check.interval_s) == ("rr", 9.0)


def group(vrid: int, *addresses: str, **more: Any) -> dict[str, Any]:
    return {"vrid": vrid, "addresses": list(addresses), "priorities": {"gw1": 200}, **more}


def test_a_duplicate_virtual_address_stays_where_it_was() -> None:
    cluster = Cluster()
    cluster.change({"vip-groups/a": group(1, "192.0.2.10/24"), "vip-groups/b": group(2, "192.0.2.11/24")})
    result = cluster.change({"vip-groups/a": group(1, "192.0.2.10/24", "192.0.2.11/24")})
    assert "duplicate virtual address 192.0.2.11" in errors(result)["vip-groups/a"].message
    assert "vip-groups/b" in errors(result)["vip-groups/a"].message
    groups = result.config.vip_groups
    assert [len(groups[name].addresses) for name in "ab"] == [1, 1]
    assert cluster.change({"vip-groups/b": group(2, "192.0.2.12/24")}).problems == ()


def test_what_worked_wins_over_what_is_older_but_never_worked() -> None:
    cluster = Cluster()
    cluster.change({"vip-groups/a": group(1, "192.0.2.10/24"), "vip-groups/b": group(2, "192.0.2.11/24")})
    cluster.change({"vip-groups/b": group(2, "192.0.2.12/24")})
    # One transaction: a takes .12 while b goes back to .11 with an error (vrid of a): b must not end up with nothing.
    result = cluster.change({"vip-groups/a": group(3, "192.0.2.12/24"), "vip-groups/b": group(3, "192.0.2.11/24")})
    assert set(result.config.vip_groups) == {"a", "b"}
    assert errors(result)


def test_vrid_clash() -> None:
    cluster = Cluster()
    result = cluster.change({"vip-groups/a": group(7, "192.0.2.10/24"), "vip-groups/b": group(7, "192.0.2.11/24")})
    assert "duplicate VRID 7" in errors(result)["vip-groups/b"].message
    assert set(result.config.vip_groups) == {"a"}
    result = cluster.change(
        {f"vip-groups/{n}": group(7, f"192.0.2.1{i}/24", interface=f"e{i}") for i, n in enumerate("ab")}
    )
    assert result.problems == ()


def test_references_to_vip_groups() -> None:
    cluster = Cluster()
    result = cluster.change({WEB: {"vip_group": "frnt"}, "vip-groups/front": group(1, "192.0.2.99/24")})
    assert 'did you mean "front"' in errors(result)[WEB].hint
    result = cluster.change({WEB: {"vip_group": "front"}})
    (warning,) = result.problems
    assert warning.severity is Severity.WARNING
    assert "192.0.2.10 is not an address of VIP group front" in warning.message
    assert cluster.change({"vip-groups/front": group(1, "192.0.2.10/24")}).problems == ()
    result = cluster.change({}, delete=("vip-groups/front",))
    assert WEB_ID in result.config.services
    assert "no VIP group" in errors(result)[WEB].message


def test_settings_fall_back_and_delete_to_defaults() -> None:
    cluster = Cluster()
    cluster.change({"settings": {"timeouts": {"tcp": 60}}})
    result = cluster.change({"settings": {"timeouts": {"tcp": 0}}})
    assert result.config.settings.timeouts.tcp_s == 60
    assert set(errors(result)) == {"settings"}
    assert cluster.change({}, delete=("settings",)).config.settings.timeouts.tcp_s == 900


def test_untouched_services_are_the_same_objects() -> None:
    cluster = Cluster()
    other = "services/tcp:192.0.2.11:80"
    before = cluster.change({WEB: {}, ONE: {}, other: {}})
    after = cluster.change({ONE: {"weight": 9}})
    other_id = ServiceId.parse(other.removeprefix("services/"))
    assert after.config.services[other_id] is before.config.services[other_id]
    assert web(before).servers != web(after).servers
    assert web(after).servers[0].id == ServerId.parse("198.51.100.21:80")


KEYS = [WEB, ONE, TWO, "services/udp:192.0.2.10:53", "checks/web", "vip-groups/a", "vip-groups/b", "settings", "junk"]
GOOD: dict[str, list[Any]] = {
    "services": [{}, {"scheduler": "rr"}, {"check": "web"}, {"vip_group": "a"}, {"check": "web", "vip_group": "b"}],
    "servers": [{}, {"weight": 3}, {"forward": "direct"}],
    "checks": [{"type": "http"}, {"interval": 1}],
    "vip-groups": [group(1, "192.0.2.10/24"), group(2, "192.0.2.11/24"), group(1, "192.0.2.11/24", interface="e0")],
    "settings": [{"timeouts": {"udp": 10}}],
    "junk": [{}],
}
BAD = ["{", "[]", '{"unknown": 1}', '{"weight": 99999}', '{"check": "nope"}', '{"vip_group": "nope"}']


def values(key: str) -> st.SearchStrategy[Any]:
    kind = "servers" if "/servers/" in key else key.partition("/")[0]
    return st.sampled_from(GOOD[kind] + BAD)


STEPS = st.lists(
    st.sampled_from(KEYS).flatmap(lambda key: st.tuples(st.just(key), st.none() | values(key))), min_size=1, max_size=25
)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_nothing_that_worked_is_lost_by_any_sequence(steps: list[tuple[str, Any]]) -> None:
    cluster = Cluster()
    for key, value in steps:
        before = cluster.now
        if value is None:
            if key in cluster.entries:
                cluster.change({}, delete=(key,))
        else:
            result = cluster.change({key: value})
            if isinstance(before, Resolution):
                assert before.config.services.keys() <= result.config.services.keys()
                assert before.config.vip_groups.keys() <= result.config.vip_groups.keys()
                assert before.good.keys() <= result.good.keys() | {
                    key for key in before.good if key.startswith("checks/") and key not in cluster.entries
                }
                for service_id, service in before.config.services.items():
                    now = result.config.services[service_id]
                    assert {server.id for server in service.servers} <= {server.id for server in now.servers}
        assert isinstance(cluster.now, Resolution) or not cluster.entries
        if isinstance(cluster.now, Resolution):
            everywhere = {problem.where for problem in cluster.now.problems}
            in_force = cluster.now.good
            for name, entry in cluster.entries.items():
                service = name.partition("/servers/")[0]
                assert name in everywhere or service in everywhere or in_force.get(name) == entry, (
                    "what is not in force is reported"
                )
