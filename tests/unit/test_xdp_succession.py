"""Values of one layout written in another, field by field."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp.succession.btf import Field
from lbnode.dataplane.xdp.succession.fields import Conversion, Shape

NAMES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 9)), unique_by=lambda one: one[0], max_size=8)


def shape(fields: list[tuple[str, int]]) -> Shape:
    at, found = 0, []
    for name, size in fields:
        found.append(Field(name, at, size))
        at += size
    return Shape(tuple(found), at + 1)  # with a byte that belongs to nobody


@given(NAMES, NAMES, st.integers(0, 5), st.data())
def test_fields_go_where_the_new_layout_has_them(
    old: list[tuple[str, int]], new: list[tuple[str, int]], count: int, data: st.DataObject
) -> None:
    before, after = shape(old), shape(new)
    values = data.draw(st.binary(min_size=count * before.stride, max_size=count * before.stride))
    result = Conversion(before, after).convert(values)
    if old == new:
        assert result == values
        return
    assert len(result) == count * after.stride
    known = {one.path: one for one in before.fields}
    for number in range(count):
        was, now = values[number * before.stride :], result[number * after.stride :]
        for field in after.fields:
            source = known.get(field.path)
            kept = min(field.size, source.size) if source else 0
            there = now[field.offset : field.offset + field.size]
            assert there == (was[source.offset :][:kept] if source else b"") + bytes(field.size - kept)
