"""Which connections lead to the same objects, as far as the configuration says it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandboxes.kubectl.config import CurrentContext
from sandboxes.kubectl.places import Place, place_of, same_places
from sandboxes.settings import Settings


def place(server: str, name: str | None = None, proxy: str | None = None, namespace: str = "n") -> Place:
    context = CurrentContext("context", server, name, proxy_url=proxy)
    return place_of(context, Settings.model_construct(k8s_namespace=namespace))


@pytest.mark.parametrize(
    "server", ["HTTPS://Api.example.com", "https://api.example.com/", "https://api.example.com:443"]
)
def test_one_address_in_several_spellings_is_one_place(server: str) -> None:
    assert place(server) == place("https://api.example.com")


@pytest.mark.parametrize(
    "other",
    [
        place("https://api.example.com:6443"),
        place("http://api.example.com"),
        place("https://api.example.com/k8s/clusters/b"),
        place("https://api.example.com", name="b.example.com"),
        place("https://api.example.com", proxy="http://proxy.b"),
        place("https://api.example.com", namespace="m"),
        place("https://[::1]:6443"),
        place("https://[::1"),
    ],
)
def test_another_address_way_or_namespace_may_be_another_cluster(other: Place) -> None:
    assert same_places([("a", place("https://api.example.com")), ("b", other)]) == []


def test_the_address_of_the_settings_counts(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(K8S_API_SERVER="https://api.example.com:443", K8S_NAMESPACE="n")
    assert place_of(CurrentContext("context", "https://10.0.0.1", None), settings) == place("https://api.example.com")


def test_each_later_name_is_named_with_the_first_one() -> None:
    one, two = place("https://one"), place("https://two")
    names = [("a", one), ("b", two), ("c", one), ("d", one)]
    assert same_places(names) == [("a", "c", one), ("a", "d", one)]
    assert one.shown == "namespace n at https://one:443"
