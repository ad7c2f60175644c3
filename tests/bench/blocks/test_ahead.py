"""Progress over parts whose length is found out on the way."""

from ifspace.bench.session import Ahead


def test_parts_add_up_and_end_where_they_are() -> None:
    told: list[tuple[int, int]] = []
    ahead = Ahead(lambda done, total: told.append((done, total)), {"a": 1.0, "b": 4.0, "c": 5.0})
    ahead.part("a")(1.0, 1.0)
    ahead.part("b")(1.0, 2.0)
    ahead.part("b")(2.5, 2.0)
    ahead.over("c")
    assert told == [(1000, 10000), (2000, 8000), (3000, 8000), (3000, 3000)]
