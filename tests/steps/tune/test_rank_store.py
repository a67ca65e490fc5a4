"""The store of rank 0, in one process."""

from __future__ import annotations

import socket

import pytest

from steps.tune.layout import LOCALHOST, Layout
from steps.tune.rank_store import RankStore


def test_the_store_listens_on_one_address_only() -> None:
    """Whoever reaches it can make the ranks unpickle any value."""
    port = Layout(1, 2).with_free_port().port
    store = RankStore(LOCALHOST, port, 0, 2, 2)
    socket.create_connection((LOCALHOST, port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
    reader = RankStore(LOCALHOST, port, 1, 2, 2)
    store.send("rows", {"a": [1, 2]})
    assert reader.receive("rows") == {"a": [1, 2]}
